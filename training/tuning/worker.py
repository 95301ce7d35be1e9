"""A worker: asks for a trial, trains it, tells, until the budget is spent.

It may be killed at any moment. Then one trial is left running in the storage, and is given up by whoever sees it first.
"""

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Final

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from training import console
from training.data.loading import Dataset, load
from training.errors import Diverged, TrainingError
from training.quiet import quiet_import
from training.tuning import study as studies
from training.tuning.cost import Meter
from training.tuning.settings import Job

if TYPE_CHECKING:
    from training.loop import Epoch  # it imports Keras

BAD_INPUT: Final = 2
_ORPHANED: Final = 3


@dataclass(frozen=True)
class Place:
    """Where a worker works.

    Args:
        scratch: A folder that is removed when all workers have ended.
        log: What it prints goes there.
        lock: Held while a worker of this machine asks, so that the budget is kept to the trial.
        threads: Its share of the cores.
        gpu: As CUDA_VISIBLE_DEVICES names it; None: leave it as it is.
        until_s: No trial begins after this time of the system's clock; infinite: no limit.
    """

    scratch: Path
    log: Path
    lock: Path
    threads: int
    gpu: str | None
    until_s: float


def main(job: Job, place: Place) -> None:
    """Runs a worker as a process of its own; the exit code is 2 for input that cannot be used.

    Args:
        job: The search.
        place: Where it works.
    """
    _detach(place)
    try:
        _limit_threads(place.threads)
        work(job, place)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 (the log, whose last line is told)
        sys.exit(BAD_INPUT)


def work(job: Job, place: Place) -> None:
    """Asks, trains and tells until the budget is spent.

    Args:
        job: The search.
        place: Where to work.

    Raises:
        TrainingError: The data or the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load(job.proxy)  # once, for all trials
    study = studies.join_study(job)
    try:
        with Meter(place.scratch) as meter:
            while (trial := _asked(study, job, place)) is not None:
                with _heartbeat(study, trial):
                    _evaluate(job, trial, data, meter)
    finally:
        studies.close(study)


def _asked(study: optuna.Study, job: Job, place: Place) -> optuna.Trial | None:
    if time.time() >= place.until_s:
        return None
    # The system lets go of this lock when its process ends, however it ends.
    with place.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trials = study.get_trials(deepcopy=False)
        if not studies.is_open(trials, job):
            return None
        with _in_one_piece():
            return studies.ask(study, job)


@contextlib.contextmanager
def _in_one_piece() -> Iterator[None]:
    """Puts off an end by SIGTERM: a trial that is begun and not signed yet would count as running for two minutes."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for number in came:
            signal.raise_signal(number)


def _evaluate(job: Job, trial: optuna.Trial, data: Dataset, meter: Meter) -> None:
    """Trains a trial and tells the study how it went."""
    began_s = time.perf_counter()
    try:
        _tell(job, trial, data, meter)
    except optuna.exceptions.UpdateFinishedTrialError:
        console.say(f"trial {trial.number} was given up meanwhile: this machine was silent for too long")
    console.say(f"trial {trial.number}: {time.perf_counter() - began_s:.1f} s")


def _tell(job: Job, trial: optuna.Trial, data: Dataset, meter: Meter) -> None:
    values = job.space.suggest(trial)
    console.say(f"trial {trial.number}: {values}")
    try:
        accuracy = _measured(job, trial, values, data, meter)
    except optuna.TrialPruned:
        studies.finish(trial, TrialState.PRUNED, studies.POOR)
    except _TooSlowError as slow:
        studies.finish(trial, TrialState.PRUNED, studies.TOO_SLOW, str(slow))
    except Diverged as diverged:
        studies.finish(trial, TrialState.PRUNED, studies.DIVERGED, str(diverged))
    except TrainingError as error:
        studies.finish(trial, TrialState.FAIL, studies.REFUSED, str(error))
    else:
        trial.study.tell(trial, accuracy, skip_if_finished=True)


class _TooSlowError(Exception):
    """What the candidate costs, and what it may."""


def _measured(job: Job, trial: optuna.Trial, values: dict[str, object], data: Dataset, meter: Meter) -> float:
    with quiet_import():
        from training.tuning.candidate import Candidate  # noqa: PLC0415 (TensorFlow, after its environment is set)

    candidate = Candidate(job, values, data)
    if job.measures_cost:
        cost_us = candidate.us_per_image(meter)
        trial.set_user_attr(studies.US_PER_IMAGE, round(cost_us, 2))
        limit_us = job.tuning.max_us_per_image
        if limit_us:
            trial.set_constraint(studies.US_PER_IMAGE, cost_us / limit_us - 1)  # the sampler learns from it
        if limit_us and cost_us > limit_us:
            studies.narrow(trial, job, cost_us / limit_us)
            raise _TooSlowError(f"expected at most {limit_us:g} µs per image, received {cost_us:.1f}")

    def report(epoch: "Epoch") -> None:
        trial.report(epoch.val_accuracy, epoch.epoch)
        if epoch.epoch < job.tuning.proxy_epochs and trial.should_prune():
            raise optuna.TrialPruned

    accuracy, fitted = candidate.train(meter.folder, report)
    trial.set_user_attr("images_per_s", max(line.images_per_s for line in fitted.history))
    trial.set_user_attr("parameters", sum(int(weights.size) for weights in fitted.weights))
    return accuracy


@contextlib.contextmanager
def _heartbeat(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Tells the storage now and then that the trial is worked on, for those who cannot ask for this process."""
    storage: BaseStorage = study._storage  # noqa: SLF001 (heartbeats have no public way outside of `optimize`)
    stop = threading.Event()

    def beat() -> None:
        while True:
            storage.record_heartbeat(trial._trial_id)  # noqa: SLF001
            if stop.wait(studies.HEARTBEAT_S):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _detach(place: Place) -> None:
    """Leaves the terminal to the parent, whose Ctrl-C ends this process, and ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    with place.log.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(_ORPHANED)


def _limit_threads(count: int) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    with quiet_import():
        import keras  # noqa: PLC0415 (after the environment is set)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 (this backend's)

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
