"""Keeps workers running until the budget is spent, shows what they find, and gives up what a dead one left."""

import contextlib
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import optuna

from training.errors import TrainingError
from training.tuning import processes, worker
from training.tuning import study as studies
from training.tuning.settings import Job
from training.tuning.worker import Place

_POLL_S: Final = 1.0
_STOP_S: Final = 10.0
_DEATHS: Final = 3  # in a row, with no trial finished between them: what kills them will kill the next one too
_STALE_EVERY_S: Final = 30.0
_SCRATCH: Final = ".scratch-"
_TOLD_LETTERS: Final = 300


class Crew:
    """The workers of this machine.

    Args:
        job: The search.
        study: Opened.
    """

    def __init__(self, job: Job, study: optuna.Study) -> None:
        self._job = job
        self._study = study
        self._context = multiprocessing.get_context("spawn")  # a fork would share what TensorFlow and SQLite hold
        self._workers: dict[int, BaseProcess] = {}
        self._deaths = 0
        self._finished = 0
        minutes = job.tuning.minutes
        self._until_s = time.time() + 60 * minutes if minutes else float("inf")

    def run(self, show: Callable[[], None]) -> None:
        """Works until the budget is spent.

        Args:
            show: Called now and then.

        Raises:
            TrainingError: Workers cannot work: what they were given is unusable, or they die again and again.
            KeyboardInterrupt: Ctrl-C; the workers have been stopped and their trials given up.
        """
        with _scratch(self._job.folder) as scratch:
            try:
                for index in range(self._job.tuning.workers):
                    self._start(index, scratch)
                self._watch(scratch, show)
            finally:
                self._stop()
                studies.give_up_lost(self._study)
                show()

    def _watch(self, scratch: Path, show: Callable[[], None]) -> None:
        looked_s = time.monotonic()
        while self._workers:
            connection.wait([one.sentinel for one in self._workers.values()], timeout=_POLL_S)
            for index, one in list(self._workers.items()):
                if not one.is_alive():
                    self._ended(index, one, scratch)
            if time.monotonic() - looked_s > _STALE_EVERY_S:
                looked_s = time.monotonic()
                studies.give_up_lost(self._study)
            show()

    def _start(self, index: int, scratch: Path) -> None:
        gpus = processes.gpus()
        place = Place(
            scratch=scratch,
            log=self._log(index),
            lock=self._job.folder / ".lock",
            threads=processes.threads(self._job.tuning.workers),
            gpu=gpus[index % len(gpus)] if gpus else None,
            until_s=self._until_s,
        )
        started = self._context.Process(target=worker.main, args=(self._job, place), name=f"worker {index}")
        started.start()
        self._workers[index] = started

    def _ended(self, index: int, one: BaseProcess, scratch: Path) -> None:
        """Looks after a worker that has ended: by itself, or by a signal or an error, when another takes its place."""
        one.join()
        del self._workers[index]
        if one.exitcode == 0:
            return
        if one.exitcode == worker.BAD_INPUT:
            raise TrainingError(self._last_words(index).removeprefix("error: "))
        studies.give_up_lost(self._study)
        self._count_death()
        if self._deaths >= _DEATHS:
            raise TrainingError(
                f"expected workers that live, {_DEATHS} in a row died (exit code {one.exitcode}:"
                f" {self._last_words(index)}); see {self._log(index)}"
            )
        self._start(index, scratch)

    def _count_death(self) -> None:
        finished = sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))
        self._deaths = 1 if finished - 1 > self._finished else self._deaths + 1  # less the trial that was just given up
        self._finished = finished

    def _log(self, index: int) -> Path:
        return self._job.folder / f"worker-{processes.host()}-{index}.log"

    def _last_words(self, index: int) -> str:
        lines = self._log(index).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:_TOLD_LETTERS] if lines else "no word"

    def _stop(self) -> None:
        """Ends the workers that are left; what they told the storage is kept."""
        for one in self._workers.values():
            one.terminate()
        for one in self._workers.values():
            one.join(_STOP_S)
            if one.is_alive():
                one.kill()
                one.join()
        self._workers.clear()


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Makes a folder for what workers write meanwhile; removes it, and those of searches that were killed here."""
    here = f"{_SCRATCH}{processes.machine()}-"
    for left in folder.glob(f"{here}*"):
        if not processes.is_alive(left.name.removeprefix(here).replace("-", ":")):
            shutil.rmtree(left, ignore_errors=True)
    made = folder / f"{here}{processes.own().replace(':', '-')}"
    made.mkdir(exist_ok=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
