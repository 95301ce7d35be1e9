"""`python -m training tune` as a process: a worker is killed, Ctrl-C, the same command again, a run."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from training import runs
from training.pso_storage import open_storage
from training.tuning import study as studies

SPACE = """
set.units.0: {type: int, low: 4, high: 32, log: true, default: 16}
learning_rate: {type: float, low: 0.001, high: 0.02, log: true, default: 0.01}
"""
TRIALS: Final = 3
STUDY: Final = "digits-mlp-random"
TIMEOUT_S: Final = 280.0
WORKING: Final = """
    SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id)
    WHERE key = 'process' AND state = 'RUNNING'
"""
FINISHED: Final = "SELECT number FROM trials WHERE state = 'COMPLETE'"


class Command:
    """The command, in a folder of its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.tuning = folder / "runs" / "tuning" / STUDY
        (folder / "space.yaml").write_text(SPACE)
        self._environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}

    def start(self, *more: str) -> subprocess.Popen[str]:
        words = [
            "tune", "--model", "mlp", "--set", "units=[16]", "--sampler", "random", "--space", "space.yaml",
            "--trials", f"{TRIALS}", "--fraction", "0.2", "--proxy-epochs", "1", "--epochs", "1", "--pruner", "none",
            *more,
        ]  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "training", *words],
            cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def trials(self) -> list[FrozenTrial]:
        study = optuna.load_study(storage=f"sqlite:///{self.tuning / 'study.db'}", study_name=STUDY)
        try:
            return list(study.trials)
        finally:
            studies.close(study)


@pytest.fixture
def command(root: Path, tmp_path: Path) -> Command:
    return Command(root, tmp_path)


@pytest.fixture
def started(command: Command) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    begun: list[subprocess.Popen[str]] = []
    # A shell's background jobs ignore Ctrl-C, and so do their children; what is handled is a child's default again.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*more: str) -> subprocess.Popen[str]:
        begun.append(command.start(*more))
        return begun[-1]

    yield start
    signal.signal(signal.SIGINT, before)
    for one in begun:
        one.kill()
        one.communicate()


def asked(file: Path, question: str) -> list[str]:
    """Asks the database itself: opening a study anew at each look would take more time than the search."""
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        try:
            return [str(row[0]) for row in connection.execute(question)]
        except sqlite3.OperationalError:  # its tables are not there yet, or being made
            return []


def wait_for(file: Path, question: str, process: subprocess.Popen[str]) -> list[str]:
    until_s = time.monotonic() + TIMEOUT_S
    while not (answer := asked(file, question)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until_s, "the search does not come so far"
        time.sleep(0.1)
    return answer


@pytest.mark.slow
def test_a_killed_worker_ctrl_c_and_the_same_command_again(
    command: Command, started: Callable[..., subprocess.Popen[str]]
) -> None:
    first = started("--workers", "2", "--trials", "100")  # so many that it cannot be done before it is told to stop
    worker = json.loads(wait_for(command.tuning / "study.db", WORKING, first)[0])
    os.kill(int(worker.partition(":")[0]), signal.SIGKILL)
    wait_for(command.tuning / "study.db", FINISHED, first)
    first.send_signal(signal.SIGINT)
    output, errors = first.communicate(timeout=60)
    assert (first.returncode, errors) == (130, "interrupted\n")
    assert "the same command goes on" in output

    left = command.trials()
    assert not [one for one in left if one.state == TrialState.RUNNING]
    assert [
        one for one in left if one.user_attrs.get(studies.PROCESS) == worker and studies.outcome(one) == studies.LOST
    ]
    complete = [one for one in left if one.state == TrialState.COMPLETE]
    assert [one for one in left if studies.outcome(one) not in ("", studies.LOST)] == []
    assert json.loads((command.tuning / "optimization_results.json").read_text())["counts"]["complete"] == len(complete)
    assert not list(command.tuning.glob(".scratch*"))

    wanted = max(TRIALS, len(complete) + 1)
    again = started("--best", "2", "--trials", f"{wanted}")
    _sleep_and_wake(command, again)
    output, errors = again.communicate(timeout=TIMEOUT_S)
    assert (again.returncode, errors) == (0, "")
    assert f"going on after {len(complete)} trials" in output
    trials = command.trials()
    assert [one for one in trials if one.number in {before.number for before in complete}] == complete
    assert sum(one.state == TrialState.COMPLETE for one in trials) == wanted
    assert not [one for one in trials[len(left) :] if studies.outcome(one) == studies.LOST]
    _check_run(command)


def _sleep_and_wake(command: Command, process: subprocess.Popen[str]) -> None:
    """Halts all of a search in the midst of a trial, as a laptop that is shut, until its heartbeats are an hour old."""
    file = command.tuning / "study.db"
    wait_for(file, WORKING, process)
    while True:
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=0.1)) as connection, connection:
                connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")
            break
        except sqlite3.OperationalError:  # halted in the midst of a write
            os.killpg(process.pid, signal.SIGCONT)
    storage = open_storage(f"sqlite:///{file}")
    storage.heartbeat_interval, storage.grace_period = studies.HEARTBEAT_S, studies.GRACE_S
    study = optuna.load_study(storage=storage, study_name=STUDY)
    assert studies.give_up_lost(study) == 0
    studies.close(study)
    os.killpg(process.pid, signal.SIGCONT)


def _check_run(command: Command) -> None:
    """The best of two trained in full, by validation, is a run, and says where it comes from."""
    found = json.loads((command.tuning / "optimization_results.json").read_text())
    assert len(found["finals"]) == 2
    run = runs.resolve(command.folder / "runs", found["run"])
    origin = run.record["tuning"]
    best = max(found["finals"], key=lambda one: one["validation_accuracy"])
    assert (origin["study"], origin["trial"], origin["sampler"]) == (STUDY, found["finals"][0]["trial"], "random")
    assert found["finals"][0]["validation_accuracy"] == best["validation_accuracy"]
    assert run.metrics()["validation"]["accuracy"] == best["validation_accuracy"]
    assert run.record["model_settings"]["units"] == [origin["parameters"]["set.units.0"]]
    assert run.record["learning_rate"] == origin["parameters"]["learning_rate"]
    assert run.record["data"]["fraction"] == 1.0
    assert (run.path / "model.keras").is_file()
    assert (run.path / "holdout.npz").is_file()
