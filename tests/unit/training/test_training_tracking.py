"""Finished runs in MLflow: a real folder store where MLflow is installed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training import tracking
from training.errors import TrainingError
from training.loop import Epoch
from training.runs import Run

pytestmark = pytest.mark.slow  # Keras and MLflow take seconds to import


@pytest.fixture
def log(tmp_path: Path) -> Callable[[str], None]:
    """Returns a function that logs a run of two epochs to a store."""
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"accuracy": 0.75, "loss": 0.5}}))
    history = [Epoch(epoch, 2 / epoch, 0.5, 1 / epoch, 0.25 * epoch, 0.01, 3.0, 100.0, 0.1) for epoch in (1, 2)]
    run = Run(tmp_path, {"name": "digits", "run": 7})
    return lambda uri: tracking.log(uri, run, {"optimizer": "adamw"}, history)


def test_a_run_is_logged_to_a_folder(
    log: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("mlflow", reason='pip install "shoal[mlflow]" tests this').MlflowClient
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # put back afterwards
    log(str(tmp_path / "store"))
    store = client((tmp_path / "store").as_uri())
    experiment = store.get_experiment_by_name("digits")
    (logged,) = store.search_runs([experiment.experiment_id])
    assert (logged.info.run_name, logged.info.status) == ("digits/7", "FINISHED")
    assert logged.data.params == {"optimizer": "adamw"}
    assert logged.data.tags["run_folder"] == str(tmp_path)
    assert (logged.data.metrics["test_accuracy"], logged.data.metrics["test_loss"]) == (0.75, 0.5)
    losses = store.get_metric_history(logged.info.run_id, "val_loss")
    assert [(one.step, one.value) for one in losses] == [(1, 1.0), (2, 0.5)]


def test_a_store_that_cannot_be_written_is_one_line(log: Callable[[str], None], tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason='pip install "shoal[mlflow]" tests this')
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"is finished, but MLflow at '.*/file' refuses it: ") as raised:
        log(str(tmp_path / "file"))
    assert "\n" not in str(raised.value)


def test_without_mlflow_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    tracking.check("")
    with pytest.raises(TrainingError, match=r'expected MLflow .*, it is not; pip install "shoal\[mlflow\]"'):
        tracking.check("mlruns")
