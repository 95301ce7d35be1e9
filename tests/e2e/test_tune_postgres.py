"""A search on a real PostgreSQL with several processes: nothing is lost, nothing is done twice."""

import contextlib
import os
import pickle
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from training.errors import TrainingError
from training.settings import TrainSettings
from training.tuning import space
from training.tuning import study as studies
from training.tuning.settings import Job, TuneSettings

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: nothing to reach PostgreSQL with")
pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("tune_worker.py")
SPACE = """
learning_rate: {type: float, low: 0.0001, high: 0.1, log: true, default: 0.001}
batch_size: {type: int, low: 16, high: 128, default: 64}
"""


def _program(name: str) -> str | None:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty database of a cluster that lives as long as this module's tests."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    who = _unprivileged()
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if who:
            os.chown(folder, who["user"], who["group"])
        data = f"{folder}/data"

        def run(*words: str) -> None:
            subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120, **who)

        run(initdb, "-D", data, "-U", "tuner", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        # A socket in the folder and no port at all: no other test can be in its way.
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run(pg_ctl, "-D", data, "-l", f"{folder}/log", "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://tuner@/postgres?host={folder}"
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "stop")


def make_job(folder: Path, database: str, trials: int, text: str = SPACE) -> Job:
    file = folder / "space.yaml"
    file.write_text(text)
    tuning = TuneSettings(trials=trials, storage=database, study=f"s{trials}", workers=3)
    return Job(TrainSettings(runs=folder / "runs"), tuning, space.read(file))


@contextlib.contextmanager
def begun(job: Job) -> Iterator[optuna.Study]:
    study = studies.open_study(job, "sha256:1")
    try:
        yield study
    finally:
        studies.close(study)


def start(job: Job, root: Path, host: Path, *more: str) -> subprocess.Popen[str]:
    """Starts a worker of a machine: workers of one share a folder."""
    host.mkdir(exist_ok=True)
    file = host / "job"
    file.write_bytes(pickle.dumps(job))
    environment = {**os.environ, "PYTHONPATH": str(root)}
    words = [sys.executable, str(WORKER), str(file), str(host), *more]
    return subprocess.Popen(words, env=environment, cwd=host, stdout=subprocess.PIPE, text=True)


def test_processes_of_two_machines_share_a_study(root: Path, tmp_path: Path, database: str) -> None:
    job = make_job(tmp_path, database, trials=20)
    with begun(job) as study:
        workers = [start(job, root, tmp_path / host) for host in ("a", "a", "b")]
        told = [int(line) for one in workers for line in one.communicate(timeout=120)[0].splitlines()]
        assert [one.returncode for one in workers] == [0, 0, 0]
        trials = study.trials
    assert sorted(told) == [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    # Workers of one machine ask one after the other; each further machine may ask at the very same moment.
    assert 20 <= len(trials) <= 21
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials)


def test_another_space_is_refused_and_the_password_stays_secret(tmp_path: Path, database: str) -> None:
    job = make_job(tmp_path, database.replace("tuner@", "tuner:secret@"), trials=3)
    with begun(job) as study:
        before = study.trials
        other = make_job(tmp_path, job.storage, 3, SPACE.replace("128", "256"))
        with pytest.raises(
            TrainingError, match=r"in postgresql\+psycopg://…@/postgres.* is of another space"
        ) as raised:
            studies.open_study(other, "sha256:1")
        assert study.trials == before
    assert "secret" not in str(raised.value)


def test_a_killed_process_costs_its_trial_alone(root: Path, tmp_path: Path, database: str) -> None:
    job = make_job(tmp_path, database, trials=6)
    with begun(job) as study:
        stalled = start(job, root, tmp_path / "a", "stall")
        assert stalled.stdout is not None
        assert stalled.stdout.readline() == "stalled\n"
        assert studies.give_up_lost(study) == 0
        stalled.kill()
        stalled.communicate()
        assert studies.give_up_lost(study) == 1
        assert start(job, root, tmp_path / "a").communicate(timeout=120)[0].count("\n") == 6
        assert [studies.outcome(trial) for trial in study.trials] == [studies.LOST, *[""] * 6]
