"""A finished run measured again: what `metrics.json` and the figures say, and what ends in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training.finished_run import write_run

pytestmark = [
    pytest.mark.slow,  # TensorFlow takes seconds to import
    # Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

NAMES = ("dark", "bright")
FIGURES = {"confusion_matrix.png", "learning_curves.png", "most_wrong.png", "per_class.png", "reliability.png"}


def brightness_model() -> Any:
    """Says "bright" for pictures whose mean is above the middle, the surer the farther it is from it."""
    import keras  # noqa: PLC0415

    pixels = keras.Input((4, 4, 1))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels))
    output = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(pixels, output(mean))
    output.set_weights([np.array([[-2.0, 2.0]]), np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 pictures, of which rows 3 and 30 carry the wrong label; evaluated."""
    from training import runs  # noqa: PLC0415
    from training.evaluate import evaluate  # noqa: PLC0415

    shades = np.linspace(0, 255, 40).astype(np.uint8)
    labels = (shades > 127).astype(np.int64)
    labels[[3, 30]] = 1 - labels[[3, 30]]
    rows = np.ones((40, 4, 4, 1), np.uint8) * shades[:, None, None, None]
    folder = write_run(tmp_path_factory.mktemp("runs") / "shades", brightness_model(), rows, labels, NAMES)
    evaluate(runs.read(folder))
    return folder


def measured(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text())


def test_metrics_are_those_of_the_holdout(evaluated: Path) -> None:
    test = measured(evaluated)["test"]
    assert test["accuracy"] == 38 / 40
    assert test["confusion"] == [[19, 1], [1, 19]]
    assert test["rows"] == sum(one["rows"] for one in test["reliability"]) == 40
    assert measured(evaluated)["validation"] == {"accuracy": 0.45, "loss": 1.6, "rows": 10}  # as it was


def test_the_wrong_labels_are_the_most_wrong(evaluated: Path) -> None:
    lines = measured(evaluated)["most_wrong"]
    assert [(line["row"], line["truth"], line["predicted"]) for line in lines] == [
        (3, "bright", "dark"),
        (30, "dark", "bright"),
    ]


def test_every_figure_and_the_report_are_written(evaluated: Path) -> None:
    assert {file.name for file in (evaluated / "figures").iterdir()} == FIGURES
    assert (evaluated / "report.html").stat().st_size > 50_000
    assert not [file for file in evaluated.iterdir() if file.name.startswith(".")]


def test_a_run_without_mistakes_has_no_figure_of_them(tmp_path: Path) -> None:
    from training import runs  # noqa: PLC0415
    from training.evaluate import evaluate  # noqa: PLC0415

    rows = np.zeros((4, 4, 4, 1), np.uint8)
    rows[2:] = 255
    folder = write_run(tmp_path / "clear", brightness_model(), rows, np.array([0, 0, 1, 1]), NAMES)
    (folder / "figures").mkdir()
    (folder / "figures" / "most_wrong.png").write_bytes(b"of an earlier measurement")
    assert evaluate(runs.read(folder))["most_wrong"] == []
    assert {file.name for file in (folder / "figures").iterdir()} == FIGURES - {"most_wrong.png"}
    assert "There are no mistakes" in (folder / "report.html").read_text()


@pytest.mark.parametrize("name", ["holdout.npz", "history.csv", "model.keras"])
def test_a_missing_or_damaged_file_is_one_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], evaluated: Path, tmp_path: Path, name: str
) -> None:
    for file in evaluated.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).unlink()
    assert command("evaluate", str(tmp_path)) == 2
    (tmp_path / name).write_bytes(b"PK\x03\x04 cut off")
    assert command("evaluate", str(tmp_path)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: cannot evaluate the run {tmp_path} (") for line in lines)


def test_calibration_reaches_the_saved_answers() -> None:
    from training.evaluate import calibrated  # noqa: PLC0415
    from training.prediction import predict  # noqa: PLC0415

    model = brightness_model()
    random = np.random.default_rng(0)
    rows = np.ones((600, 4, 4, 1), np.uint8) * random.integers(0, 256, (600, 1, 1, 1), dtype=np.uint8)
    before = predict(model, rows)
    softer = 1 / (1 + (before[:, 0] / before[:, 1]) ** 0.4)  # the model is two and a half times too sure
    labels = (random.random(600) < softer).astype(np.int64)
    record = calibrated(model, rows, labels)
    after = predict(model, rows)
    assert record["calibration"]["applied"], record["calibration"]["reason"]
    loss = float(-np.log(after[np.arange(600), labels]).mean())
    assert record["validation"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert record["validation"]["loss"] == pytest.approx(record["calibration"]["nll_after"], rel=1e-5)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
