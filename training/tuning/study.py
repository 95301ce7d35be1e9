"""The study: opened or begun, refused if it is about something else, and its trials told apart.

           ┌─ complete        trained to the end
a trial ───┼─ pruned ─────────┬─ below the others      "outcome": what it was pruned for
           │                  ├─ diverged
           │                  └─ too slow              refused before training; not counted
           ├─ failed ─────────┬─ refused               the settings cannot be trained
           │                  └─ lost                  its worker was stopped or killed; not counted
           └─ running, waiting
"""

import time
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zlib import crc32

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from training.errors import TrainingError
from training.pso import PSOSampler
from training.pso_storage import open_storage
from training.tuning import processes
from training.tuning.settings import Job

SIGNATURE: Final = "shoal"
OUTCOME: Final = "outcome"
REASON: Final = "reason"
HOST: Final = "host"
PROCESS: Final = "process"
US_PER_IMAGE: Final = "us_per_image"
SHARE: Final = "share_of_the_default_widths"  # of the defaults, and of what `narrow` makes of them
POOR, DIVERGED, TOO_SLOW, REFUSED, LOST = "below the others", "diverged", "too slow", "refused", "lost"

HEARTBEAT_S: Final = 15
GRACE_S: Final = 120  # a machine that swaps, or a database that is moved, is silent for a while
TOO_SLOW_PER_TRIAL: Final = 10  # a space in which not even a tenth is fast enough should be another one
# The cost of a narrower net falls somewhere between its width and the square of it; less than that meets the limit
# from above, in two to four refusals of some seconds.
_NARROWING: Final = 0.6
_NARROWING_AT_LEAST: Final = 0.95
_NARROWEST: Final = 0.02
_SIGNED_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.2


def open_study(job: Job, fingerprint: str) -> optuna.Study:
    """Opens the study of a job, or begins it, with the space's defaults as its first trial.

    Args:
        job: The search.
        fingerprint: Of the data.

    Raises:
        TrainingError: The storage cannot be reached, or its study of this name is about something else; it is left
            as it was.
    """
    signature = job.signature(fingerprint)
    storage = _storage(job)
    # Only who looks for dead workers needs these two; a worker's own heartbeat is in `training.tuning.worker`.
    storage.heartbeat_interval, storage.grace_period = HEARTBEAT_S, GRACE_S
    try:
        study = optuna.create_study(storage=storage, study_name=job.study, direction="maximize")
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=job.study)
        try:
            _refuse_another(study, job, signature)
        except TrainingError:
            close(study)
            raise
        return study
    defaults = job.space.defaults()
    if defaults is not None:
        study.enqueue_trial(defaults, user_attrs={SHARE: 1.0})
    study.set_user_attr(SIGNATURE, signature)
    return study


def join_study(job: Job) -> optuna.Study:
    """Opens a study that was begun, as a worker of it.

    Raises:
        TrainingError: The storage cannot be reached.
    """
    pruner: BasePruner = NopPruner()
    if job.tuning.pruner == "median":
        pruner = MedianPruner(n_startup_trials=5, n_warmup_steps=0)
    return optuna.load_study(storage=_storage(job), study_name=job.study, sampler=_sampler(job, 0), pruner=pruner)


def close(study: optuna.Study) -> None:
    """Closes the connections to the storage; SQLite then writes its log back into the one file."""
    storage = study._storage  # noqa: SLF001 (Optuna wraps the storage that it was given)
    storage.remove_session()
    getattr(storage, "_backend", storage).engine.dispose()


def ask(study: optuna.Study, job: Job) -> optuna.Trial:
    """Begins the next trial.

    Args:
        study: From `join_study`.
        job: The search.
    """
    if job.tuning.sampler != "pso":
        # These two draw from a stream of their own, which would be the same one in every worker. The swarm's random
        # numbers follow from the trial's number.
        study.sampler = _sampler(job, len(study.get_trials(deepcopy=False)))
    trial = study.ask()
    trial.set_user_attr(PROCESS, processes.own())
    trial.set_user_attr(HOST, processes.machine())  # the last: who sees it asks for the process
    return trial


def is_open(trials: Sequence[FrozenTrial], job: Job) -> bool:
    """Tells whether the budget of trials allows another one.

    Args:
        trials: All of the study.
        job: The search.
    """
    too_slow = sum(outcome(trial) == TOO_SLOW for trial in trials)
    return counted(trials) < job.tuning.trials and too_slow < max(1, job.tuning.trials) * TOO_SLOW_PER_TRIAL


def counted(trials: Sequence[FrozenTrial]) -> int:
    """Counts the trials that took, or take, a training."""
    return sum(_is_counted(trial) for trial in trials)


def outcome(trial: FrozenTrial) -> str:
    """Returns why a trial is neither complete nor running."""
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get(OUTCOME, LOST))
    return str(trial.user_attrs.get(OUTCOME, POOR)) if trial.state == TrialState.PRUNED else ""


def narrow(trial: optuna.Trial, job: Job, cost_ratio: float) -> None:
    """After defaults that are too slow, has narrower ones tried next.

    Without them a search under a limit begins with no idea of what is good, while the space's author had one.

    Args:
        trial: Too slow. Nothing is done unless it is of the defaults, or of what this made of them.
        job: The search.
        cost_ratio: What it costs, as a multiple of the limit.
    """
    share = trial.user_attrs.get(SHARE)
    while share is not None and share > _NARROWEST:
        share *= min(_NARROWING_AT_LEAST, cost_ratio**-_NARROWING)
        values = job.space.narrowed(share)
        if values != trial.params:
            trial.study.enqueue_trial(values, user_attrs={SHARE: share})
            return


def finish(trial: optuna.Trial, state: TrialState, why: str, reason: str = "") -> None:
    """Ends a trial without a value.

    Args:
        trial: A running one.
        state: Pruned or failed.
        why: The outcome.
        reason: For people.
    """
    trial.set_user_attr(OUTCOME, why)
    if reason:
        trial.set_user_attr(REASON, reason)
    trial.study.tell(trial, state=state, skip_if_finished=True)


def give_up_lost(study: optuna.Study) -> int:
    """Marks the trials that nobody works on any more as failed.

    A process of this machine is asked for; one of another machine or container, or from before this machine's start, is
    given up when its heartbeat has stopped.

    Returns:
        How many there were.
    """
    storage: Any = study._storage  # noqa: SLF001 (`fail_stale_trials` asks no process, and gives up one that was paused)
    silent = storage._get_stale_trial_ids(study._study_id)  # noqa: SLF001
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    lost = [trial for trial in running if _is_lost(trial, is_silent=trial._trial_id in silent)]  # noqa: SLF001
    for trial in lost:
        _give_up(study, trial)
    return len(lost)


def _give_up(study: optuna.Study, frozen: FrozenTrial) -> None:
    try:
        trial = optuna.Trial(study, frozen._trial_id)  # noqa: SLF001 (there is no public way to another one's trial)
        trial.set_user_attr(OUTCOME, LOST)
        study.tell(frozen.number, state=TrialState.FAIL, skip_if_finished=True)
    except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
        return  # another process has just done the same, or the trial has ended


def _is_lost(trial: FrozenTrial, *, is_silent: bool) -> bool:
    if HOST not in trial.user_attrs:  # its worker was killed between two lines
        began = trial.datetime_start or datetime.now()  # noqa: DTZ005 (the storage's times have no zone)
        return datetime.now() - began > timedelta(seconds=GRACE_S)  # noqa: DTZ005
    if trial.user_attrs[HOST] == processes.machine():
        return not processes.is_alive(trial.user_attrs.get(PROCESS, ""))
    return is_silent


def _is_counted(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.RUNNING, TrialState.COMPLETE) or outcome(trial) in (POOR, DIVERGED, REFUSED)


def _storage(job: Job) -> Any:
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot write to {job.folder} ({error}); choose another folder with --runs") from None
    return open_storage(job.storage)


def _sampler(job: Job, asked: int) -> BaseSampler:
    seed = job.settings.seed
    if job.tuning.sampler == "pso":
        return PSOSampler(seed=seed, search_space=job.space.always())
    # Of one machine, workers ask one after the other; those of several may ask at the same time.
    where = processes.host() if job.tuning.storage else ""
    stream = crc32(f"{seed} {asked} {where}".encode())
    if job.tuning.sampler == "random":
        return RandomSampler(seed=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=stream, constant_liar=job.tuning.workers > 1)


def _refuse_another(study: optuna.Study, job: Job, signature: dict[str, Any]) -> None:
    before = _signed(study)
    if before is None:
        raise TrainingError(
            f"the study '{job.study}' in {job.storage_shown} was not begun by this command; choose another name by"
            " --study, it is left as it was"
        )
    before = {**before, "space": job.space.with_types(before["space"])}
    differing = [name for name in signature if before.get(name) != signature[name]]
    if differing:
        name = differing[0]
        short = all(isinstance(one.get(name), str | int | float) for one in (before, signature))
        told = f" ({before.get(name)} then, {signature[name]} now)" if short else ""
        raise TrainingError(
            f"the study '{job.study}' in {job.storage_shown} is of another {name}{told}: its accuracies would not"
            " compare; choose another name by --study, it is left as it was"
        )


def _signed(study: optuna.Study) -> dict[str, Any] | None:
    """Returns a study's signature; another process may have begun it this very moment."""
    until_s = time.monotonic() + _SIGNED_WITHIN_S
    while True:
        found: dict[str, Any] | None = study.user_attrs.get(SIGNATURE)
        if found is not None or study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return found
        if time.monotonic() > until_s:
            return None
        time.sleep(_POLL_S)
