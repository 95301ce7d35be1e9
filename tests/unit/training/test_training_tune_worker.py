"""A worker's trials, in this process: short trainings of the embedded digits, and the cost of a candidate."""

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import optuna
import pytest
from optuna.trial import TrialState

import export.cost
from export.errors import ExportError
from training.errors import Diverged, TrainingError
from training.loop import Epoch
from training.settings import TrainSettings
from training.tuning import space, worker
from training.tuning import study as studies
from training.tuning.candidate import Candidate
from training.tuning.cost import Meter
from training.tuning.settings import Job, TuneSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        # Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
]
SPACE = """
set.units.0: {type: int, low: 4, high: 32, log: true, default: 16}
learning_rate: {type: float, low: 0.001, high: 0.02, log: true, default: 0.01}
"""
FINGERPRINT = "sha256:1"
Search = Callable[..., optuna.Study]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """Returns a function that runs a worker in this process until its budget is spent."""

    def run(text: str = SPACE, *, until_s: float = float("inf"), **tuning: object) -> optuna.Study:
        file = tmp_path / "space.yaml"
        file.write_text(text)
        values = {"trials": 2, "fraction": 0.2, "proxy_epochs": 2, **tuning}
        settings = TrainSettings(model="mlp", runs=tmp_path / "runs", set={"units": "[16]"})
        job = Job(settings, TuneSettings.parse(values), space.read(file))
        study = studies.open_study(job, FINGERPRINT)
        place = worker.Place(
            scratch=tmp_path, log=tmp_path / "log", lock=tmp_path / "lock", threads=1, gpu=None, until_s=until_s
        )
        worker.work(job, place)
        return study

    return run


def test_trials_are_trained_and_told_epoch_by_epoch(search: Search, tmp_path: Path) -> None:
    trials = search().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        assert trial.value == trial.intermediate_values[2]
        assert set(trial.intermediate_values) == {1, 2}
        assert 0 < trial.value <= 1
        units = trial.params["set.units.0"]
        assert trial.user_attrs["parameters"] == (64 + 1) * units + (units + 1) * 10
    assert not list((tmp_path / "runs").glob("*/[0-9]*")), "a trial leaves no run"
    assert not list(tmp_path.glob("tmp*")), "nor files"


def test_no_trial_begins_after_the_time_is_up(search: Search) -> None:
    assert [trial.state for trial in search(until_s=0.0).trials] == [TrialState.WAITING]


def test_each_end_of_a_trial_is_told_with_its_reason(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number == 0)
    pruned = search(study="pruned", trials=1).trials
    assert [(studies.outcome(trial), len(trial.intermediate_values)) for trial in pruned] == [(studies.POOR, 1)]

    def diverge(*_: object) -> None:
        raise Diverged("expected a finite loss")

    monkeypatch.setattr("training.tuning.candidate.Candidate.train", diverge)
    diverged = search(study="diverged", trials=1).trials
    assert [studies.outcome(trial) for trial in diverged] == [studies.DIVERGED]
    refused = search("set.units.0: {type: int, low: 1, high: 70000, default: 70000}", study="refused", trials=1).trials
    assert [studies.outcome(trial) for trial in refused] == [studies.REFUSED]
    assert "--set" in refused[0].user_attrs[studies.REASON]


@pytest.mark.parametrize("diverges", [False, True])
def test_a_trial_that_was_given_up_while_its_machine_slept_costs_itself_alone(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, diverges: bool
) -> None:
    train = Candidate.train
    slept: list[int] = []

    def sleepy(self: Candidate, folder: Path, on_epoch: Callable[[Epoch], None]) -> Any:
        if not slept:
            file = next((tmp_path / "runs" / "tuning").glob("*/study.db"))
            study = optuna.load_study(study_name=file.parent.name, storage=f"sqlite:///{file}")
            slept.append(study.trials[-1].number)
            studies._give_up(study, study.trials[-1])  # as another machine would
            if diverges:
                raise Diverged("expected a finite loss")
        return train(self, folder, on_epoch)

    monkeypatch.setattr(Candidate, "train", sleepy)
    trials = search(trials=1, proxy_epochs=1).trials
    assert [studies.outcome(trial) for trial in trials] == [studies.LOST, ""]
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_candidates_beyond_the_limit_are_refused_before_training(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_size(_: Meter, model: Any) -> float:
        return float(model.count_params()) / 10

    monkeypatch.setattr(Meter, "us_per_image", by_size)
    trials = search(trials=2, max_us_per_image=120.0, proxy_epochs=1).trials
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 2
    for trial in trials:
        is_slow = trial.user_attrs[studies.US_PER_IMAGE] > 120
        assert is_slow == (studies.outcome(trial) == studies.TOO_SLOW) == (not trial.intermediate_values)
        above = trial.user_attrs[studies.US_PER_IMAGE] / 120 - 1
        assert trial.constraints == {studies.US_PER_IMAGE: pytest.approx(above, abs=1e-3)}
        if is_slow:
            assert "expected at most 120 µs per image, received " in trial.user_attrs[studies.REASON]
    assert any(studies.outcome(trial) == studies.TOO_SLOW for trial in trials)


def test_defaults_that_are_too_slow_are_tried_with_fewer_units_until_they_are_not(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "us_per_image", lambda _, model: float(model.count_params()))
    text = SPACE.replace("default: 16", "default: 32").replace("low: 4, ", "low: 2, ")
    trials = search(text, trials=1, max_us_per_image=500.0, proxy_epochs=1).trials
    assert [trial.params["set.units.0"] for trial in trials] == [32, 16, 7, 6]
    assert {trial.params["learning_rate"] for trial in trials} == {0.01}
    assert [studies.outcome(trial) for trial in trials] == [studies.TOO_SLOW] * 3 + [""]


def test_where_not_even_the_narrowest_defaults_are_fast_enough_the_sampler_goes_on(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "us_per_image", lambda *_: 200.0)
    trials = search(trials=1, max_us_per_image=100.0, proxy_epochs=1).trials
    assert len(trials) == studies.TOO_SLOW_PER_TRIAL
    assert [trial.params["set.units.0"] for trial in trials][:3] == [16, 11, 7]
    assert trials[3].params["set.units.0"] == 5
    assert len({trial.params["learning_rate"] for trial in trials}) > 1


def test_the_cost_of_untrained_models_is_measured_by_the_export(tmp_path: Path) -> None:
    def net(filters: int) -> object:
        pixels = keras.Input((16, 16, 3))
        features = keras.layers.Rescaling(1 / 255)(pixels)
        features = keras.layers.Conv2D(filters, 3, activation="relu")(features)
        features = keras.layers.GlobalAveragePooling2D()(features)
        return keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(features))

    with Meter(tmp_path) as meter:
        assert 0 < meter.us_per_image(net(8)) < 10_000
        flat = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        with pytest.raises(TrainingError, match=r"received one that cannot: .*expected one input \[n, height, width"):
            meter.us_per_image(flat)
        process = meter._process
        assert process is not None
        assert 0 < meter.us_per_image(net(4)) < 10_000
        assert meter._process is process, "the libraries are loaded once"
    assert process.returncode == 0
    assert not list(tmp_path.iterdir())


def test_a_worker_that_is_told_to_end_signs_the_trial_it_begins_first(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[bool] = []

    def ended(*_: object) -> None:
        signed.append(all(studies.PROCESS in trial.user_attrs for trial in begun[0].get_trials()))
        raise KeyboardInterrupt

    begun: list[optuna.Study] = []
    ask = optuna.Study.ask

    def told_to_end(study: optuna.Study) -> optuna.Trial:
        begun.append(study)
        trial = ask(study)
        signal.raise_signal(signal.SIGTERM)
        return trial

    monkeypatch.setattr(optuna.Study, "ask", told_to_end)
    before = signal.signal(signal.SIGTERM, ended)
    try:
        with pytest.raises(KeyboardInterrupt):
            search()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signed == [True]


@pytest.mark.parametrize("when", ["while it is asked", "before it is asked"])
def test_a_meter_that_was_killed_costs_one_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    with Meter(tmp_path) as meter:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", shutil.which("false"))
            if when == "before it is asked":
                meter._started().wait()
            with pytest.raises(TrainingError, match=r"no answer from `python -m export cost` \(exit code 1\)"):
                meter.us_per_image(model)
        assert 0 < meter.us_per_image(model) < 10_000


def test_what_cannot_be_exported_is_told_in_the_exports_words(tmp_path: Path) -> None:
    flat = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    flat.save(tmp_path / "flat.keras")
    with pytest.raises(
        ExportError, match=r"expected one input \[n, height, width, channels\], received \[\(None, 3\)\]"
    ):
        export.cost.measure(tmp_path / "flat.keras", opset=17)
