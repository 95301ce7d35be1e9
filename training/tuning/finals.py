"""The best trials, trained in full; the best of them by the validation split becomes a run.

    trials ──K best by their short trainings──▶ <study>/candidates/<name>/<n> ──best by validation──▶ runs/<name>/<n>

Each is an ordinary run, so that the same command again goes on where it was. The test split has no say in any choice.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial

from training import console, runs
from training.compare import finished_run
from training.data.loading import Dataset
from training.errors import Diverged, TrainingError
from training.train import train
from training.tuning import progress
from training.tuning.candidate import settings_of
from training.tuning.settings import Job

CANDIDATES: Final = "candidates"
RECORD: Final = "tuning"
_OWN_FACTS: Final = ("schema", "name", "run")


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial that was trained in full.

    Args:
        trial: What the short training told.
        run: The training in full.
    """

    trial: FrozenTrial
    run: runs.Run

    @property
    def validation(self) -> dict[str, Any]:
        """Accuracy and loss on the validation split."""
        found: dict[str, Any] = self.run.metrics()["validation"]
        return found


def train_best(job: Job, study: optuna.Study, data: Dataset) -> list[Finalist]:
    """Trains the best trials in full, where no finished run will do; the next best stands in for one that diverges.

    Args:
        job: The search.
        study: Its study.
        data: All of it.

    Returns:
        The best by validation accuracy, then loss, first.

    Raises:
        TrainingError: A training failed, or all of them diverged; those finished before are kept.
    """
    ranked = progress.best(study.get_trials(deepcopy=False))
    count = min(job.tuning.best, len(ranked))
    made: list[Finalist] = []
    for trial in ranked:
        if len(made) == count:
            break
        try:
            made.append(_trained(job, trial, data, len(made) + 1, count))
        except Diverged as error:
            console.say(f"trial {trial.number} diverged in full, the next best stands in for it: {error}")
    if not made:
        raise TrainingError(
            f"each of the {len(ranked)} complete trials diverged in full; give a --space of lower rates"
        )
    return sorted(made, key=lambda one: (-one.validation["accuracy"], one.validation["loss"]))


def publish(job: Job, finals: Sequence[Finalist]) -> runs.Run:
    """Makes the best one a run like any other, whose `run.json` says where it comes from.

    Args:
        job: The search.
        finals: The best one first.

    Returns:
        The run: a new one, unless an earlier command has published it.

    Raises:
        TrainingError: It cannot be written.
    """
    best = finals[0]
    origin = {
        "study": job.study,
        "storage": job.storage_shown,
        "trial": best.trial.number,
        "proxy_accuracy": best.trial.value,
        "parameters": dict(best.trial.params),
        "sampler": job.tuning.sampler,
        "us_per_image": best.trial.user_attrs.get("us_per_image"),
    }
    for run in runs.every(job.settings.runs):
        if run.record.get(RECORD) == origin and run.record.get("key") == best.run.record["key"]:
            return run
    record = {name: value for name, value in best.run.record.items() if name not in _OWN_FACTS}
    with runs.draft(job.settings.runs, job.settings.run_name, key=f"tuned{best.run.record['key']}") as folder:
        try:
            shutil.copytree(
                best.run.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(runs.RECORD, ".lock")
            )
        except (OSError, shutil.Error) as error:
            raise TrainingError(f"cannot copy {best.run.path} to {folder.parent} ({error}); make room") from error
        return runs.publish(folder, {**record, RECORD: origin})


def _trained(job: Job, trial: FrozenTrial, data: Dataset, place: int, count: int) -> Finalist:
    console.say(f"training {place}/{count} in full: trial {trial.number}, {trial.value:.4f} in its short training")
    own = settings_of(job.settings, trial.params, data)
    settings = own.model_copy(update={"runs": job.folder / CANDIDATES, "name": job.settings.run_name})
    run = finished_run(settings, data) or train(settings, data)
    return Finalist(trial, run)
