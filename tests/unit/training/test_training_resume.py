"""A training that is cut off goes on where it was: after kill -9, Ctrl-C and a full disk, with the same result."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # trainings in processes of their own

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = ("--epochs", "4", "--fraction", "0.5", "--seed", "3", "--ema", "0.9", "--deterministic", "--keep", "best")


def arguments(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "training", "train", *SETTINGS, "--runs", str(runs), *more]


def finish(runs: Path, *more: str) -> str:
    finished = subprocess.run(arguments(runs, *more), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


def start(command: Sequence[str], **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    )


def metrics(runs: Path, number: int = 1) -> Any:
    return json.loads((runs / "digits" / str(number) / "metrics.json").read_text())


def history(runs: Path, number: int = 1) -> list[str]:
    """The columns that do not depend on time."""
    lines = (runs / "digits" / str(number) / "history.csv").read_text().splitlines()
    return [",".join(line.split(",")[:6]) for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("uninterrupted")
    finish(runs)
    return runs


def test_kill_at_any_moment_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    moment = random.Random().uniform(0, 1.5)
    with start(arguments(tmp_path)) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 1/4") for line in process.stdout)
        time.sleep(moment)  # wherever it is then: within an epoch, a checkpoint, the evaluation
        process.kill()
    drafts = [path.name for path in (tmp_path / "digits").iterdir()]
    told = finish(tmp_path)
    assert "continuing an unfinished run of these settings after epoch" in told or drafts == ["1"], (moment, drafts)
    assert metrics(tmp_path) == metrics(uninterrupted), moment
    assert history(tmp_path) == history(uninterrupted), moment
    assert {path.name for path in (tmp_path / "digits").iterdir()} <= {"1", "2"}
    hidden = [path.name for path in (tmp_path / "digits" / "1").iterdir() if path.name.startswith(".")]
    assert hidden == []


def test_interrupt_keeps_what_is_done_and_other_settings_do_not_take_it(tmp_path: Path) -> None:
    endless = ("--epochs", "10000", "--patience", "10000")
    with start(
        arguments(tmp_path, *endless),
        # a shell that starts the tests in the background has SIGINT ignored, which children inherit
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # no thread is at work here
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch") for line in process.stdout)
        [draft] = (tmp_path / "digits").iterdir()
        with (draft / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever came now would leave it alone
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert f"what is trained so far is kept in {draft}; the same command continues" in output
    assert (draft / ".checkpoint" / "state.npz").is_file()


def test_jax_trains_by_the_same_code(tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    settings = ("--model", "mlp", "--epochs", "2", "--ema", "0.9", "--lookahead", "2", "--runs", str(tmp_path))
    command = [sys.executable, "-m", "training", "train", *settings]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert metrics(tmp_path)["test"]["accuracy"] > 0.5
