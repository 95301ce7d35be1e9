"""Real trainings through the command line: every file of the run folder, and what is left when it is interrupted."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server import images
from server.images import ImageSpec

pytestmark = [
    pytest.mark.slow,  # each needs TensorFlow, which takes seconds to import
    # Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[3]
FILES = {
    "calibration.npz",
    "figures/confusion_matrix.png",
    "figures/learning_curves.png",
    "figures/most_wrong.png",
    "figures/per_class.png",
    "figures/reliability.png",
    "history.csv",
    "holdout.npz",
    "metrics.json",
    "model.keras",
    "report.html",
    "run.json",
    "samples.npz",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of digits on half of the training split; the run folder."""
    root = tmp_path_factory.mktemp("runs")
    settings = [
        "--name",
        "first",
        "--epochs",
        "2",
        "--fraction",
        "0.5",
        "--seed",
        "7",
        "--mixed-precision",
        "float32",  # in which the run's metrics are computed; those of the epochs are in the training's precision
        "--schedule",
        "constant",
        "--learning-rate",
        "0.004",
    ]
    command = [sys.executable, "-m", "training", "train", *settings, "--runs", str(root)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert f"run    {root / 'first' / '1'}" in finished.stdout
    assert [path.name for path in root.iterdir()] == ["first"]
    assert [path.name for path in (root / "first").iterdir()] == ["1"]
    return root / "first" / "1"


def record(run: Path, name: str = "run.json") -> Any:
    return json.loads((run / name).read_text())


def test_run_folder_is_complete(trained: Path) -> None:
    found = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    logs = {path for path in found if path.startswith("tensorboard/")}
    assert found - logs == FILES
    assert {path.split("/")[1] for path in logs} == {"train", "validation"}


def test_the_page_names_what_is_in_the_run_folder(trained: Path) -> None:
    table = (ROOT / "docs" / "training.md").read_text().split("## The run folder")[1].split("\n## ")[0]
    named = re.findall(r"^\| `([\w.]+)", table, flags=re.MULTILINE)
    assert set(named) == {path.name for path in trained.iterdir()}


def test_record_says_how_the_run_was_made(trained: Path) -> None:
    run = record(trained)
    assert (run["schema"], run["name"], run["run"], run["model"]) == (1, "first", 1, "cnn")
    assert run["image"] == {"height_px": 8, "width_px": 8, "channels": 1}
    assert run["labels"] == list("0123456789")
    assert (run["seed"], run["epochs"], run["batch_size"], run["learning_rate"]) == (7, 2, 64, 0.004)
    assert run["model_settings"]["filters"] == [32, 64, 128, 256]
    assert run["preprocessing"] == {"scale": 1 / 255, "offset": 0.0, "resize": "bilinear-antialias"}
    assert run["data"]["rows"] == {"train": 647, "validation": 144, "test": 359}
    assert run["data"]["source"] == "digits"
    assert run["data"]["fingerprint"].startswith("sha256:")
    assert run["framework"].startswith("keras 3.")
    assert "(tensorflow 2." in run["framework"]
    assert run["created_at"].endswith("Z")
    assert run["duration_s"] > 0
    assert (run["settings"]["optimizer"], run["settings"]["schedule"]) == ("adamw", "constant")
    assert (run["settings"]["keep"], run["settings"]["augment"], run["best_epoch"] in (1, 2)) == ("best", "none", True)
    assert 0 <= run["timing"]["input_share"] <= 1
    assert run["timing"]["images_per_s"] > 0
    assert {"keras", "numpy", "pillow"} <= set(run["tools"])


def test_history_has_a_line_per_epoch(trained: Path) -> None:
    with (trained / "history.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert float(lines[1]["loss"]) < float(lines[0]["loss"])
    assert all(0 <= float(line["input_share"]) <= 1 and float(line["images_per_s"]) > 0 for line in lines)


def test_arrays_are_what_export_needs(trained: Path) -> None:
    with np.load(trained / "calibration.npz") as calibration, np.load(trained / "holdout.npz") as holdout:
        assert calibration["rows"].shape == (647, 8, 8, 1)
        assert holdout["rows"].shape == (359, 8, 8, 1)
        for arrays in (calibration, holdout):
            assert (arrays["rows"].dtype, arrays["labels"].dtype) == (np.uint8, np.int64)
            assert len(arrays["rows"]) == len(arrays["labels"])


def test_samples_are_test_files_with_their_labels(trained: Path) -> None:
    with np.load(trained / "samples.npz") as samples, np.load(trained / "holdout.npz") as holdout:
        encoded, offsets, labels = samples["encoded"], samples["offsets"], samples["labels"]
        held_out = {(row.tobytes(), int(label)) for row, label in zip(holdout["rows"], holdout["labels"], strict=True)}
    assert (encoded.dtype, offsets.dtype, labels.dtype) == (np.uint8, np.int64, np.int64)
    assert (len(labels), len(offsets), offsets[0], offsets[-1]) == (32, 33, 0, len(encoded))
    assert set(labels.tolist()) == set(range(10))
    for index, label in enumerate(labels):
        file = encoded[offsets[index] : offsets[index + 1]].tobytes()
        assert Image.open(io.BytesIO(file)).format == "PNG"
        assert (images.decode(file, ImageSpec(8, 8, 1)).tobytes(), int(label)) in held_out


def test_saved_model_reproduces_the_metrics(trained: Path) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    model = keras.saving.load_model(trained / "model.keras", compile=False)
    assert model.count_params() == record(trained)["parameters"]
    assert model.input_shape == (None, 8, 8, 1)
    with np.load(trained / "holdout.npz") as holdout:
        rows, labels = holdout["rows"], holdout["labels"]
    probabilities = model.predict(rows, verbose=0)
    test = record(trained, "metrics.json")["test"]
    assert np.mean(probabilities.argmax(axis=1) == labels) == pytest.approx(test["accuracy"])
    assert -np.log(probabilities[np.arange(359), labels]).mean() == pytest.approx(test["loss"], rel=1e-4)
    assert test["accuracy"] > 0.2  # twice what guessing gives


def test_validation_metrics_are_those_of_the_best_epoch(trained: Path) -> None:
    with (trained / "history.csv").open(newline="") as stream:
        lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(stream)]
    best = max(lines, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    measured = record(trained, "metrics.json")
    validation, calibration = measured["validation"], measured["calibration"]
    assert validation["accuracy"] == pytest.approx(best["val_accuracy"], abs=1e-6)
    assert calibration["nll_before"] == pytest.approx(best["val_loss"], rel=1e-4)
    kept = "nll_after" if calibration["applied"] else "nll_before"
    assert validation["loss"] == pytest.approx(calibration[kept], rel=1e-4)


def test_evaluate_gives_the_same_and_rewrites_files(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    before = record(trained, "metrics.json")
    (trained / "figures" / "confusion_matrix.png").unlink()
    (trained / "metrics.json").write_text(json.dumps(before | {"test": {}}))
    assert command("evaluate", "first", "--runs", str(trained.parents[1])) == 0
    after = record(trained, "metrics.json")
    assert after["test"]["confusion"] == before["test"]["confusion"]
    assert after["test"]["loss"] == pytest.approx(before["test"]["loss"])
    assert after["validation"] == before["validation"]
    assert f"accuracy {before['test']['accuracy']:.4f}" in capsys.readouterr().out
    assert (trained / "figures" / "confusion_matrix.png").is_file()


def test_damaged_run_is_one_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_bytes((trained / "run.json").read_bytes())
    (tmp_path / "model.keras").write_bytes(b"half a model")
    assert command("evaluate", str(tmp_path)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: cannot evaluate the run {tmp_path}")
    assert shown.count("\n") == 1


def test_same_seed_gives_the_same_metrics(command: Callable[..., int], trained: Path, tmp_path: Path) -> None:
    settings = [
        "--epochs",
        "2",
        "--fraction",
        "0.5",
        "--seed",
        "7",
        "--mixed-precision",
        "float32",
        "--schedule",
        "constant",
        "--learning-rate",
        "0.004",
    ]
    assert command("train", *settings, "--runs", str(tmp_path)) == 0
    again = tmp_path / "digits" / "1"
    assert record(again, "metrics.json")["test"]["confusion"] == record(trained, "metrics.json")["test"]["confusion"]
    assert record(again)["data"] == record(trained)["data"]


def test_own_pictures_in_bfloat16(
    command: Callable[..., int], make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(count=12, size_px=(10, 12), mode="RGB")
    arguments = ["--data", str(root), "--epochs", "1", "--mixed-precision", "bfloat16", "--set", "dropout=0"]
    arguments += ["--augment", "flip,crop"]
    assert command("train", *arguments, "--runs", str(tmp_path / "runs")) == 0
    run = record(tmp_path / "runs" / "photos" / "1")
    assert run["image"] == {"height_px": 10, "width_px": 12, "channels": 3}
    assert (run["precision"], run["augment"], run["model_settings"]["dropout"]) == (
        "bfloat16",
        "flip=0.5,crop=0.125",
        0.0,
    )
    assert run["data"]["rows"] == {"train": 22, "validation": 2, "test": 24}

    import keras  # noqa: PLC0415 (slow to import)

    model = keras.saving.load_model(tmp_path / "runs" / "photos" / "1" / "model.keras", compile=False)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_precision_of_one_training_does_not_reach_the_next() -> None:
    import keras  # noqa: PLC0415 (slow to import)

    from training.plan import dtype_policy  # noqa: PLC0415

    with dtype_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_model_setting_out_of_bounds(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("train", "--set", "dropout=2", "--runs", str(tmp_path)) == 2
    assert capsys.readouterr().err == "error: --set dropout: expected less than 1; received '2'\n"
    assert list(tmp_path.iterdir()) == []
