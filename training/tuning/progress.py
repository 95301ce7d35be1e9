"""What a person sees of a search: a live table on a terminal, a line for each trial elsewhere."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from training import console
from training.tuning import study as studies
from training.tuning.settings import Job

_SHOWN: Final = 10
_SECOND_COLUMN: Final = "accuracy"


@contextlib.contextmanager
def shown(study: optuna.Study, job: Job) -> Iterator[Callable[[], None]]:
    """Shows a search.

    Args:
        study: Of the search.
        job: The search.

    Yields:
        A function to call now and then.
    """
    terminal = Console(highlight=False)
    if not terminal.is_terminal:
        yield _Lines(study, job)
        return
    with Live(table(study.get_trials(deepcopy=False), job), console=terminal, auto_refresh=False) as live:
        yield lambda: live.update(table(study.get_trials(deepcopy=False), job), refresh=True)


class _Lines:
    """Tells every trial once, when it has ended."""

    def __init__(self, study: optuna.Study, job: Job) -> None:
        self._study = study
        self._job = job
        self._told = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}

    def __call__(self) -> None:
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                console.say("  ".join(cell for cell in cells(trial) if cell))


def table(trials: Sequence[FrozenTrial], job: Job) -> Any:
    """Makes the table: trials under way, then the best.

    Args:
        trials: All of the study.
        job: The search.
    """
    made = Table(title=headline(trials, job), title_justify="left")
    for head in ("trial", _SECOND_COLUMN, "time", "cost", "parameters"):
        made.add_column(head, justify="left" if head == "parameters" else "right")
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in [*running, *best(trials)[:_SHOWN]]:
        made.add_row(*cells(trial))
    return made


def headline(trials: Sequence[FrozenTrial], job: Job) -> str:
    """Counts the trials in a line."""
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    others: dict[str, int] = {}
    for trial in trials:
        why = studies.outcome(trial)
        if why:
            others[why] = others.get(why, 0) + 1
    told = "".join(f", {count} {why}" for why, count in sorted(others.items()))
    counted = studies.counted(trials) - running
    return f"study {job.study}: {counted} of {job.tuning.trials} trials, {running} running, {complete} complete{told}"


def best(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Sorts the complete trials, the most accurate first, and the earlier of two alike."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


def cells(trial: FrozenTrial) -> tuple[str, str, str, str, str]:
    """Writes a trial down: number, accuracy or outcome, time, cost, parameters."""
    cost_us = trial.user_attrs.get(studies.US_PER_IMAGE)
    last = trial.intermediate_values.get(trial.last_step) if trial.last_step is not None else None
    reached = (
        f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else f"{last:.4f} …" if last is not None else "…"
    )
    time_s = trial.duration.total_seconds() if trial.duration else None
    return (
        f"{trial.number}",
        studies.outcome(trial) or reached,
        "" if time_s is None else f"{time_s:.1f} s",
        "" if cost_us is None else f"{cost_us:.1f} µs",
        ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items()),
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
