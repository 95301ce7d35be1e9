"""The study of a search: begun, gone on with, refused; lost trials, the budget, and what is reported of it."""

import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from rich.console import Console

from training.errors import TrainingError
from training.settings import TrainSettings
from training.tuning import crew, figures, processes, progress, results, space
from training.tuning import study as studies
from training.tuning.settings import Job, TuneSettings

SPACE = """
learning_rate: {type: float, low: 0.0001, high: 0.1, log: true, default: 0.001}
batch_size: {type: int, low: 16, high: 128, default: 64}
optimizer: {type: categorical, choices: [adamw, sgd], default: adamw}
"""
MakeJob = Callable[..., Job]
pytestmark = pytest.mark.slow  # a database takes a fifth of a second to begin


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    def make(text: str = SPACE, train: dict[str, Any] | None = None, **tuning: Any) -> Job:
        file = tmp_path / "space.yaml"
        file.write_text(text)
        settings = TrainSettings.parse({"runs": tmp_path / "runs", "model": "cnn", **(train or {})})
        return Job(settings, TuneSettings.parse({"trials": 6, "study": "s", **tuning}), space.read(file))

    return make


def finish(job: Job, study: optuna.Study, count: int) -> list[dict[str, Any]]:
    asked = []
    for _ in range(count):
        trial = studies.ask(study, job)
        asked.append(job.space.suggest(trial))
        study.tell(trial, 1 - abs(asked[-1]["learning_rate"] - 0.01))
    return asked


def test_the_first_trial_is_the_default(make_job: MakeJob) -> None:
    job = make_job()
    studies.open_study(job, "sha256:1")
    assert finish(job, studies.join_study(job), 1) == [job.space.defaults()]


def test_the_same_search_goes_on_and_another_is_refused_unharmed(make_job: MakeJob) -> None:
    job = make_job()
    study = studies.open_study(job, "sha256:1")
    finish(job, studies.join_study(job), 2)
    again = studies.open_study(make_job(trials=9, workers=3, minutes=1, train={"epochs": 9}), "sha256:1")
    assert len(again.trials) == 2
    before = (study.user_attrs, study.trials)
    others = {
        "data (sha256:1 then, sha256:2 now)": (job, "sha256:2"),
        "model (cnn then, mlp now)": (make_job(train={"model": "mlp"}), "sha256:1"),
        "sampler (pso then, tpe now)": (make_job(sampler="tpe"), "sha256:1"),
        "fraction (0.3 then, 0.5 now)": (make_job(fraction=0.5), "sha256:1"),
        "space": (make_job(SPACE.replace("128", "256")), "sha256:1"),
        "settings": (make_job(train={"label_smoothing": 0.1}), "sha256:1"),
    }
    for told, (other, data) in others.items():
        with pytest.raises(TrainingError) as raised:
            studies.open_study(other, data)
        assert f"the study 's' in study.db is of another {told}: its accuracies" in str(raised.value)
        assert "choose another name by --study, it is left as it was" in str(raised.value)
    assert (study.user_attrs, study.trials) == before


def test_a_space_of_other_types_is_another_one_and_a_record_without_types_fits(make_job: MakeJob) -> None:
    job, real = make_job(), SPACE.replace("type: int", "type: float")
    study = studies.open_study(job, "sha256:1")
    with pytest.raises(TrainingError, match="is of another space: its accuracies"):
        studies.open_study(make_job(real), "sha256:1")
    signature = study.user_attrs[studies.SIGNATURE]
    for recorded in signature["space"].values():
        del recorded["type"]  # as studies were signed before
    study.set_user_attr(studies.SIGNATURE, signature)
    studies.open_study(job, "sha256:1")
    with pytest.raises(TrainingError, match="is of another space"):
        studies.open_study(make_job(SPACE.replace("128", "256")), "sha256:1")


def test_a_study_of_somebody_else_is_refused(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "_SIGNED_WITHIN_S", 0.0)
    job = make_job()
    job.folder.mkdir(parents=True)
    optuna.create_study(storage=job.storage, study_name="s").enqueue_trial({"a": 1})
    with pytest.raises(TrainingError, match="was not begun by this command"):
        studies.open_study(job, "sha256:1")


def test_trials_of_dead_processes_are_given_up_and_no_others(make_job: MakeJob) -> None:
    job = make_job()
    watched = studies.open_study(job, "sha256:1")
    study = studies.join_study(job)
    mine, killed, reused, elsewhere = (studies.ask(study, job) for _ in range(4))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    killed.set_user_attr(studies.PROCESS, processes.name(ended.pid))
    ended.wait()
    reused.set_user_attr(studies.PROCESS, f"{os.getpid()}:1")  # another process had this number before
    elsewhere.set_user_attr(studies.HOST, "another machine")
    assert studies.give_up_lost(watched) == 2
    states = {trial.number: (trial.state, studies.outcome(trial)) for trial in watched.trials}
    assert states[killed.number] == states[reused.number] == (TrialState.FAIL, studies.LOST)
    assert states[mine.number] == states[elsewhere.number] == (TrialState.RUNNING, "")
    assert studies.give_up_lost(watched) == 0


def test_a_machine_without_a_heartbeat_loses_its_trial(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job()
    watched = studies.open_study(job, "sha256:1")
    study = studies.join_study(job)
    silent, alive, paused = (studies.ask(study, job) for _ in range(3))
    for trial in (silent, alive):
        trial.set_user_attr(studies.HOST, "another machine")
    for trial in (silent, alive, paused):
        study._storage.record_heartbeat(trial._trial_id)
    later = "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour') WHERE trial_id != :alive"
    with sqlalchemy.create_engine(job.storage).begin() as connection:
        connection.execute(sqlalchemy.text(later), {"alive": alive._trial_id})
    studies.give_up_lost(watched)
    assert [studies.outcome(trial) for trial in watched.trials] == [studies.LOST, "", ""]


def test_a_process_of_a_container_or_machine_of_the_same_name_is_not_asked_for(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stand_on(name: str, boot: str, namespace: str) -> str:
        proc = tmp_path / name
        (proc / "self/ns").mkdir(parents=True)
        (proc / "self/ns/pid").symlink_to(namespace)
        (proc / "sys/kernel/random").mkdir(parents=True)
        (proc / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
        monkeypatch.setattr(processes, "_PROC", proc)
        return processes.machine()

    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    job = make_job()
    watched = studies.open_study(job, "sha256:1")
    study = studies.join_study(job)
    machines = [stand_on("here", "boot-1", "pid:[1]")]
    for where in (("container", "boot-1", "pid:[2]"), ("twin", "boot-2", "pid:[1]")):
        machines.append(stand_on(*where))
        studies.ask(study, job)
    studies.ask(study, job).set_user_attr(studies.HOST, "box")  # as it was signed before
    monkeypatch.setattr(processes, "_PROC", tmp_path / "here")
    studies.ask(study, job)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study._storage.set_trial_user_attr(trial._trial_id, studies.PROCESS, "1:1")  # no such process here
    studies.give_up_lost(watched)
    assert [studies.outcome(trial) for trial in watched.trials] == ["", "", "", studies.LOST]
    assert len(set(machines)) == 3
    assert all(re.fullmatch(r"box-[0-9a-f]{16}", one) for one in machines)


def test_a_trial_that_is_being_signed_is_not_lost(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job()
    watched = studies.open_study(job, "sha256:1")
    study = studies.join_study(job)
    sign = optuna.Trial.set_user_attr
    lost: list[int] = []

    def look(self: optuna.Trial, key: str, value: Any) -> None:
        sign(self, key, value)
        lost.append(studies.give_up_lost(watched))

    monkeypatch.setattr(optuna.Trial, "set_user_attr", look)
    studies.ask(study, job)
    assert lost == [0, 0]


def test_only_what_was_trained_counts_against_the_budget(make_job: MakeJob) -> None:
    job = make_job(trials=4)
    study = studies.open_study(job, "sha256:1")
    joined = studies.join_study(job)
    finish(job, joined, 1)
    studies.finish(studies.ask(joined, job), TrialState.PRUNED, studies.TOO_SLOW, "reason")
    studies.finish(studies.ask(joined, job), TrialState.FAIL, studies.LOST)
    studies.finish(studies.ask(joined, job), TrialState.PRUNED, studies.POOR)
    studies.finish(studies.ask(joined, job), TrialState.FAIL, studies.REFUSED)
    assert studies.counted(study.trials) == 3
    assert studies.is_open(study.trials, job)
    studies.ask(joined, job)  # running
    assert not studies.is_open(study.trials, job)
    told = progress.headline(study.trials, job)
    assert told == "study s: 3 of 4 trials, 1 running, 1 complete, 1 below the others, 1 lost, 1 refused, 1 too slow"


def test_a_space_in_which_nothing_is_fast_enough_ends(make_job: MakeJob) -> None:
    job = make_job(trials=1)
    study = studies.open_study(job, "sha256:1")
    joined = studies.join_study(job)
    for _ in range(studies.TOO_SLOW_PER_TRIAL):
        assert studies.is_open(study.trials, job)
        studies.finish(studies.ask(joined, job), TrialState.PRUNED, studies.TOO_SLOW)
    assert not studies.is_open(study.trials, job)


@pytest.mark.parametrize("sampler", ["pso", "random", "tpe"])
def test_one_worker_asks_for_the_same_trials_again_though_it_was_replaced(make_job: MakeJob, sampler: str) -> None:
    def searched(name: str, *shares: int) -> list[dict[str, Any]]:
        job = make_job(sampler=sampler, study=name)
        studies.open_study(job, "sha256:1")
        return [one for share in shares for one in finish(job, studies.join_study(job), share)]

    at_once, in_two = searched("a", 12), searched("b", 5, 7)
    assert at_once == in_two
    assert len({str(one) for one in at_once}) == 12


def test_results_and_figures(make_job: MakeJob) -> None:
    job = make_job(max_us_per_image=100.0, storage="")
    study = studies.open_study(job, "sha256:1")
    joined = studies.join_study(job)
    for number, (accuracy, cost_us) in enumerate([(0.5, 40), (0.7, 60), (0.6, 70), (0.9, 90), (0.7, 50)]):
        trial = studies.ask(joined, job)
        job.space.suggest(trial)
        trial.set_user_attr(studies.US_PER_IMAGE, cost_us)
        trial.report(accuracy - 0.1, 1)
        joined.tell(trial, accuracy)
        assert trial.number == number
    slow = studies.ask(joined, job)
    slow.set_user_attr(studies.US_PER_IMAGE, 130)
    studies.finish(slow, TrialState.PRUNED, studies.TOO_SLOW, "expected at most 100")
    shown = Console(file=io.StringIO(), width=200, record=True)
    shown.print(progress.table(study.trials, job))
    lines = shown.export_text().splitlines()
    assert "study s: 5 of 6 trials, 0 running, 5 complete, 1 too slow" in lines[0]
    assert [line.split()[1] for line in lines if "µs" in line] == ["3", "1", "4", "2", "0"]
    found = json.loads(results.write(job, study).read_text())
    assert found["pareto"] == [0, 4, 3]
    assert found["best"]["number"] == 3
    assert found["counts"] == {"complete": 5, "too slow": 1, "counted": 5}
    assert found["trials"][5]["reason"] == "expected at most 100"
    assert found["trials"][3]["epochs"] == [0.8]
    assert set(found["importance"]) == {"batch_size", "learning_rate", "optimizer"}
    assert sum(found["importance"].values()) == pytest.approx(1, abs=0.01)
    drawn = figures.write(job, study)
    assert [file.name for file in drawn] == ["convergence.png", "paths.png", "importance.png", "pareto.png"]
    assert all(file.stat().st_size > 5_000 for file in drawn)


def test_a_storage_that_cannot_be_reached_is_told_without_its_password(make_job: MakeJob) -> None:
    job = make_job(storage="postgresql+psycopg://me:secret@127.0.0.1:1/none")
    with pytest.raises(TrainingError, match=r"expected a database at postgresql\+psycopg://…@127") as raised:
        studies.open_study(job, "sha256:1")
    assert "secret" not in str(raised.value) + job.storage_shown


def test_a_search_removes_what_killed_ones_left_here_and_nothing_of_another_machines(tmp_path: Path) -> None:
    killed, elsewhere = tmp_path / f".scratch-{processes.machine()}-1-1", tmp_path / ".scratch-box-0123-1-1"
    killed.mkdir()
    elsewhere.mkdir()
    with crew._scratch(tmp_path) as mine, crew._scratch(tmp_path):
        assert set(tmp_path.iterdir()) == {mine, elsewhere}
    assert list(tmp_path.iterdir()) == [elsewhere]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"trials": -1}, "--trials: expected greater than or equal to 0; received '-1'"),
        ({"fraction": 0}, "--fraction: expected greater than 0"),
        ({"sampler": "luck"}, "--sampler: expected 'pso', 'random' or 'tpe'; received 'luck'"),
        ({"study": "../up"}, "--study: expected letters, digits"),
        ({"proxy_epochs": "many"}, "--proxy-epochs: expected a valid integer"),
    ],
)
def test_flags_out_of_bounds_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        TuneSettings.parse(values)
