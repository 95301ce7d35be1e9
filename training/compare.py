"""Contenders side by side: the same data, the same budget, the same seeds.

    contenders × seeds ──finished already?──▶ run folder ──▶ accuracy … of each, mean and spread ──▶ comparison.*
                               └─ no ──train──┘

Each training is an ordinary run, so an interrupted comparison goes on where it was: a finished run with the same
settings on the same data is taken as it is, and one that was cut off is continued by training itself.
"""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from training import console, plan, runs
from training.contenders import Contender
from training.data.loading import Dataset, load
from training.errors import TrainingError
from training.recipe import Recipe
from training.settings import TrainSettings
from training.train import train

# Settings that say how to learn from the data, not what the data are: what is decoded can be shared between them.
_OF_LEARNING: Final = frozenset({"model", "set", "mixed_precision", *(field.name for field in fields(Recipe))})
TRIAL_EPOCHS: Final = 2
MEASURES: Final = ("accuracy", "macro_f1", "loss", "ece")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One contender's runs.

    Args:
        contender: What was trained.
        runs: One per seed, in the seeds' order.
    """

    contender: Contender
    runs: tuple[runs.Run, ...]


def compare(
    contenders: Sequence[Contender], shared: Mapping[str, Any], seeds: Sequence[int], minutes: float | None = None
) -> dict[str, Any]:
    """Trains every contender with every seed, where no finished run will do.

    Args:
        contenders: To compare; gains are counted from the first.
        shared: Raw settings that hold for all of them.
        seeds: A run of each contender for each; a seed decides the validation split, first weights and order of rows.
        minutes: Time for a training, instead of a number of epochs; see `epochs_within`.

    Returns:
        What `comparison.json` holds: `data`, `seeds`, `contenders` (see `summarised`).

    Raises:
        TrainingError: Settings are not usable, or a training failed; the runs finished until then are kept.
    """
    shelf = _Shelf()
    budgets = {one.name: _budget(one, shared, shelf, minutes) for one in contenders}
    plans = {(one.name, seed): one.settings(budgets[one.name], seed) for seed in seeds for one in contenders}
    found: dict[tuple[str, int], runs.Run] = {}
    for number, ((name, seed), settings) in enumerate(plans.items(), start=1):
        console.say(f"run {number}/{len(plans)}: {name}, seed {seed}")
        found[name, seed] = _run(name, settings, shelf)
    outcomes = [Outcome(one, tuple(found[one.name, seed] for seed in seeds)) for one in contenders]
    first = outcomes[0].runs[0].record
    return {
        "data": {key: first["data"][key] for key in ("source", "fingerprint")},
        "seeds": list(seeds),
        "minutes": minutes,
        "contenders": summarised(outcomes),
    }


def epochs_within(trial: runs.Run, minutes: float) -> int:
    """Works out how many epochs a time allows.

    Args:
        trial: A short run of the same settings; its fastest epoch counts, as the first one builds the graph.
        minutes: The time.

    Returns:
        At least 1.
    """
    fastest_s = min(float(line["duration_s"]) for line in _history(trial))
    return max(1, int(minutes * 60 / fastest_s))


def finished_run(settings: TrainSettings, data: Dataset) -> runs.Run | None:
    """Finds a finished run that depends on the same: recipe, model, data, seed, framework.

    Args:
        settings: Of the run that is needed.
        data: To learn from.

    Returns:
        The newest one, or nothing.
    """
    key = plan.decide(settings, data).key
    fitting = [run for run in runs.every(settings.runs) if run.record.get("key") == key]
    if not fitting:
        return None
    newest = max(fitting, key=lambda run: str(run.record["created_at"]))
    console.say(f"       finished before: {newest.path}")
    return newest


def summarised(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Works out what each contender reached.

    Args:
        outcomes: In the order of the comparison; gains are counted from the first.

    Returns:
        For each contender `name`, `model`, `changes`, `parameters`, for each of `MEASURES` what `spread` returns,
        `points_gained` (likewise, in points of accuracy, seed by seed), `training_s` and `epochs` (means), `runs`,
        `git_revisions`, and `validation_curves` (accuracy epoch by epoch, a list per seed).
    """
    first = [_measures(run)["accuracy"] for run in outcomes[0].runs]
    return [_line(outcome, first) for outcome in outcomes]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Works out mean and spread.

    Args:
        values: One per seed.

    Returns:
        `values`, `mean`, and `deviation`: the sample standard deviation, nothing for a single value.
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"values": list(values), "mean": statistics.fmean(values), "deviation": deviation}


def validation_curve(one: runs.Run) -> list[float]:
    """Reads a run's validation accuracy epoch by epoch."""
    return [float(line["val_accuracy"]) for line in _history(one)]


@dataclass(slots=True)
class _Shelf:
    """Keeps the data that were loaded last: the contenders of a seed mostly share them."""

    key: str = ""
    data: Dataset | None = None

    def load(self, settings: TrainSettings) -> Dataset:
        key = settings.model_dump_json(exclude=set(_OF_LEARNING))
        if self.data is None or key != self.key:
            self.data = None  # before the next ones, so that both are never held
            self.data, self.key = load(settings), key
        return self.data


def _budget(contender: Contender, shared: Mapping[str, Any], shelf: _Shelf, minutes: float | None) -> dict[str, Any]:
    """Adds the number of epochs that fit into the time, by a trial of two; that is kept as a run of its own name."""
    if minutes is None:
        return dict(shared)
    settings = contender.settings({**shared, "epochs": TRIAL_EPOCHS}, seed=0)
    console.say(f"trial: {contender.name}, {TRIAL_EPOCHS} epochs, to see how many fit into {minutes:g} minutes")
    trial = _run(contender.name, settings.model_copy(update={"name": f"{settings.run_name}-trial"}), shelf)
    return {**shared, "epochs": epochs_within(trial, minutes)}


def _run(name: str, settings: TrainSettings, shelf: _Shelf) -> runs.Run:
    """Finds or makes a run."""
    data = shelf.load(settings)
    before = finished_run(settings, data)
    if before is not None:
        return before
    try:
        return train(settings, data)
    except TrainingError as error:
        raise TrainingError(
            f"--models {name}, seed {settings.seed}: {error}; what was finished before is kept"
        ) from error


def _history(run: runs.Run) -> list[dict[str, str]]:
    with (run.path / "history.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _measures(run: runs.Run) -> dict[str, float]:
    test = run.metrics()["test"]
    return {"accuracy": test["accuracy"], "macro_f1": test["macro"]["f1"], "loss": test["loss"], "ece": test["ece"]}


def _line(outcome: Outcome, first: Iterable[float]) -> dict[str, Any]:
    measured = [_measures(run) for run in outcome.runs]
    records = [run.record for run in outcome.runs]
    gains = [100 * (one["accuracy"] - base) for one, base in zip(measured, first, strict=True)]
    return {
        "name": outcome.contender.name,
        "model": outcome.contender.model,
        "changes": dict(outcome.contender.changes),
        "parameters": records[0]["parameters"],
        **{measure: spread([one[measure] for one in measured]) for measure in MEASURES},
        "points_gained": spread(gains),
        "training_s": statistics.fmean(record["timing"]["training_s"] for record in records),
        "epochs": statistics.fmean(record["epochs"] for record in records),
        "runs": [f"{run.name}/{run.number}" for run in outcome.runs],
        "git_revisions": sorted({record["git_revision"] for record in records}),
        "validation_curves": [validation_curve(run) for run in outcome.runs],
    }
