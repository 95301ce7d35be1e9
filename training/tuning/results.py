"""`optimization_results.json`: what a search found, whatever it stopped at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from training import runs
from training.tuning import progress
from training.tuning import study as studies
from training.tuning.settings import Job

FILE: Final = "optimization_results.json"
SCHEMA: Final = 1
_FEWEST: Final = 4  # complete trials, below which an importance would be noise
_TREES_SEED: Final = 0


def write(job: Job, study: optuna.Study, finals: Sequence[Mapping[str, Any]] = (), run: str | None = None) -> Path:
    """Writes the results.

    Args:
        job: The search.
        study: Its study.
        finals: What `final` made of the trainings in full.
        run: The run that the best of them became.

    Returns:
        The file.
    """
    from training import provenance  # noqa: PLC0415 (it imports Keras)

    trials = study.get_trials(deepcopy=False)
    found = progress.best(trials)
    value = {
        "schema": SCHEMA,
        "study": job.study,
        "storage": job.storage_shown,
        "signature": study.user_attrs.get(studies.SIGNATURE),
        "workers": job.tuning.workers,
        "counts": _counts(trials),
        "best": _line(found[0]) if found else None,
        "importance": importance(study),
        "pareto": [trial.number for trial in pareto(trials)],
        "finals": list(finals),
        "run": run,
        "git_revision": provenance.git_revision(),
        "tools": {**provenance.tools(), "optuna": optuna.__version__},
        "trials": [_line(trial) for trial in trials],
    }
    file = job.folder / FILE
    runs.write_json(file, value)
    return file


def final(trial: FrozenTrial, run: runs.Run) -> dict[str, Any]:
    """Writes a training in full down."""
    measured = run.metrics()
    return {
        "trial": trial.number,
        "proxy_accuracy": trial.value,
        "validation_accuracy": measured["validation"]["accuracy"],
        "test_accuracy": measured["test"]["accuracy"],
        "parameters": run.record["parameters"],
        "epochs": run.record["epochs"],
        "us_per_image": trial.user_attrs.get(studies.US_PER_IMAGE),
        "candidate": f"{run.name}/{run.number}",
    }


def importance(study: optuna.Study) -> dict[str, float]:
    """Estimates how much of the accuracies' variance each parameter explains (fANOVA).

    Hutter, Hoos & Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.

    Returns:
        Parameter → share, the largest first; nothing if there are too few complete trials, or all are equally good.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEWEST or len({trial.value for trial in complete}) == 1:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_TREES_SEED)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: round(float(share), 4) for name, share in found.items()}


def pareto(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Finds the complete trials that no other one beats in cost without losing accuracy.

    Args:
        trials: All of the study; those whose cost was not measured are passed over.

    Returns:
        The cheapest first.
    """
    measured = [trial for trial in progress.best(trials) if studies.US_PER_IMAGE in trial.user_attrs]
    front: list[FrozenTrial] = []
    for trial in sorted(measured, key=lambda one: (one.user_attrs[studies.US_PER_IMAGE], -(one.value or 0.0))):
        if not front or (trial.value or 0.0) > (front[-1].value or 0.0):
            front.append(trial)
    return front


def _counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    kinds = [studies.outcome(trial) or trial.state.name.lower() for trial in trials]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))} | {"counted": studies.counted(trials)}


def _line(trial: FrozenTrial) -> dict[str, Any]:
    began = trial.datetime_start
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "outcome": studies.outcome(trial) or None,
        "reason": trial.user_attrs.get(studies.REASON),
        "accuracy": trial.value,
        "epochs": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
        "us_per_image": trial.user_attrs.get(studies.US_PER_IMAGE),
        "duration_s": round(trial.duration.total_seconds(), 2) if trial.duration else None,
        "began_at": began.isoformat(timespec="seconds") if began else None,
        "parameters": dict(trial.params),
    }
