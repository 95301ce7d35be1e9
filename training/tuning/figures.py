"""Figures of a search: convergence, the particles' ways, what mattered, accuracy against cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from training.figures import BLUE, GREY, ORANGE, new_figure, save
from training.pso_swarm import FLIGHT_KEY
from training.tuning import progress, results
from training.tuning import study as studies
from training.tuning.settings import Job

_AXES: Final = 2


def write(job: Job, study: optuna.Study) -> list[Path]:
    """Draws what there is to draw.

    Args:
        job: The search.
        study: Its study.

    Returns:
        The PNG files.
    """
    trials = study.get_trials(deepcopy=False)
    if not progress.best(trials):
        return []
    folder = job.folder / "figures"
    folder.mkdir(exist_ok=True)
    shares = results.importance(study)
    drawn = [
        convergence(trials, folder / "convergence.png"),
        swarm_paths(trials, _two(job, shares), folder / "paths.png"),
        importances(shares, folder / "importance.png"),
        costs(trials, job.tuning.max_us_per_image, folder / "pareto.png"),
    ]
    return [file for file in drawn if file is not None]


def convergence(trials: Sequence[FrozenTrial], file: Path) -> Path:
    """Draws every trial's accuracy, and the best so far."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.value is not None]
    axes.plot([one.number for one in complete], [one.value for one in complete], "o", color=BLUE, label="complete")
    if pruned:
        axes.plot([one.number for one in pruned], [one.value for one in pruned], "x", color=GREY, label="pruned")
    so_far = [max(one.value or 0.0 for one in complete[: end + 1]) for end in range(len(complete))]
    axes.step([one.number for one in complete], so_far, where="post", color=ORANGE, label="best so far")
    axes.set(title="convergence", xlabel="trial", ylabel="validation accuracy of the short training")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _finished(figure, axes, file, legend=True)


def swarm_paths(
    trials: Sequence[FrozenTrial], names: Sequence[tuple[str, BaseDistribution]], file: Path
) -> Path | None:
    """Draws where each particle went in two parameters, shaded by accuracy; lines only where there were particles."""
    if len(names) < _AXES:
        return None
    (x_name, x_kind), (y_name, y_kind) = names
    there = [trial for trial in trials if {x_name, y_name} <= trial.params.keys() and trial.value is not None]
    ways: dict[int, list[FrozenTrial]] = {}
    for trial in there:
        if FLIGHT_KEY in trial.system_attrs:
            ways.setdefault(int(trial.system_attrs[FLIGHT_KEY]["particle"]), []).append(trial)
    figure = new_figure(6.4, 5)
    axes = figure.subplots()
    for particle, way in sorted(ways.items()):
        places = [(trial.params[x_name], trial.params[y_name]) for trial in way]
        axes.plot(*zip(*places, strict=True), "-", linewidth=1, alpha=0.6, label=f"particle {particle}")
    xs, ys = [one.params[x_name] for one in there], [one.params[y_name] for one in there]
    marks = axes.scatter(xs, ys, c=[one.value for one in there], cmap="viridis", zorder=3, edgecolors="white")
    best = progress.best(there)
    if best:
        axes.plot(best[0].params[x_name], best[0].params[y_name], "*", color=ORANGE, markersize=16, zorder=4)
    figure.colorbar(marks, ax=axes, label="validation accuracy of the short training")
    axes.set(title="the particles' ways (star: best)" if ways else "trials (star: best)", xlabel=x_name, ylabel=y_name)
    axes.set_xscale(_scale(x_kind))
    axes.set_yscale(_scale(y_kind))
    return _finished(figure, axes, file, legend=bool(ways))


def importances(shares: Mapping[str, float], file: Path) -> Path | None:
    """Draws how much of the accuracies' variance each parameter explains."""
    if not shares:
        return None
    figure = new_figure(7, 1.2 + 0.32 * len(shares))
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names], color=BLUE)
    axes.set_yticks(range(len(names)), names)
    axes.set(title="importance (fANOVA)", xlabel="share of the variance of accuracy")
    return _finished(figure, axes, file)


def costs(trials: Sequence[FrozenTrial], limit_us: float, file: Path) -> Path | None:
    """Draws accuracy against measured cost, and the Pareto front."""
    front = results.pareto(trials)
    if not front:
        return None
    figure = new_figure(7, 4)
    axes = figure.subplots()
    measured = [trial for trial in progress.best(trials) if studies.US_PER_IMAGE in trial.user_attrs]
    axes.plot(*_points(measured), "o", color=BLUE, alpha=0.7, label="complete trials")
    axes.plot(*_points(front), "o-", color=ORANGE, label="Pareto front")
    if limit_us:
        axes.axvline(limit_us, color=GREY, linestyle="--", label="limit")
    axes.set(xlabel="µs of CPU per image, int8, one thread", ylabel="validation accuracy of the short training")
    axes.set(title="accuracy against cost")
    return _finished(figure, axes, file, legend=True)


def _points(trials: Sequence[FrozenTrial]) -> tuple[list[float], list[Any]]:
    return [trial.user_attrs[studies.US_PER_IMAGE] for trial in trials], [trial.value for trial in trials]


def _two(job: Job, shares: Mapping[str, float]) -> list[tuple[str, BaseDistribution]]:
    """Chooses the two numbers that matter most, or else the first two."""
    numbers = {name: kind for name, kind in job.space.always().items() if not isinstance(kind, CategoricalDistribution)}
    order = sorted(numbers, key=lambda name: -shares.get(name, 0.0))
    return [(name, numbers[name]) for name in order[:_AXES]]


def _scale(kind: BaseDistribution) -> str:
    return "log" if getattr(kind, "log", False) else "linear"


def _finished(figure: Any, axes: Any, file: Path, *, legend: bool = False) -> Path:
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)
    save(figure, file)
    return file
