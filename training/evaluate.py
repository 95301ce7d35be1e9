"""Measures a model: before its run folder is finished, and again later, from the folder alone.

model, splits ──measure──▶ metrics.json ──draw──▶ figures/, report.html
"""

import csv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training import calibration, figures, metrics, picture_grids, report, run_arrays, runs
from training.errors import TrainingError
from training.figures import short
from training.picture_grids import Tile
from training.prediction import predict


def evaluate(run: runs.Run) -> dict[str, Any]:
    """Measures a run's model on its held-out rows and rewrites `metrics.json`, the figures and `report.html`.

    Args:
        run: A finished run.

    Returns:
        What `metrics.json` holds; `validation` stays as training wrote it.

    Raises:
        TrainingError: The folder lacks a file or holds a damaged one.
    """
    try:
        return _evaluated(run)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TrainingError(f"cannot evaluate the run {run.path} ({error}); train again") from error


def calibrated(model: Any, rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Measures a model on the validation split, and scales its temperature where that helps.

    Args:
        model: Freshly trained; its last weights may change, its predictions do not.
        rows: The validation split, `uint8[n, h, w, c]`.
        labels: Its classes, `int64[n]`.

    Returns:
        `validation` (what `metrics.summary` returns, of the model as it is left) and `calibration` (what
        `calibration.calibrate` returns).
    """
    probabilities = predict(model, rows)
    fitted = calibration.calibrate(model, rows, probabilities, labels)
    if fitted["applied"]:
        probabilities = calibration.softened(probabilities, fitted["temperature"])
    return {"validation": metrics.summary(probabilities, labels), "calibration": fitted}


def measured_on_test(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    names: Sequence[str],
    holdout: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Measures everything about the test split.

    Args:
        probabilities: The model's answers, `float32[n, classes]`.
        labels: The true classes, `int64[n]`.
        names: `names[i]` names class i.
        holdout: Which rows `holdout.npz` keeps, `int64[m]`, if not all of them.

    Returns:
        `test` (what `metrics.report` returns) and `most_wrong` (what `metrics.most_wrong` returns, its rows counted in
        `holdout.npz`).
    """
    kept = np.arange(len(labels)) if holdout is None else holdout
    return {
        "test": metrics.report(probabilities, labels, names),
        "most_wrong": metrics.most_wrong(probabilities[kept], labels[kept], names),
    }


def draw(folder: Path, record: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Draws a run's figures into `figures/` and writes `report.html`.

    Args:
        folder: The run folder, with `history.csv` and `holdout.npz` in place.
        record: What `run.json` holds, or will hold.
        measured: What `metrics.json` holds.
    """
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    history = _history(folder / "history.csv")
    (holdout,) = run_arrays.read(folder / "holdout.npz", "rows")
    rows = holdout[[line["row"] for line in measured["most_wrong"]]]
    test = measured["test"]
    figures.learning_curves(history, target / "learning_curves.png")
    figures.confusion(test["confusion"], record["labels"], target / "confusion_matrix.png")
    figures.per_class(test["classes"], target / "per_class.png")
    figures.reliability(test["reliability"], test["ece"], target / "reliability.png")
    _draw_most_wrong(rows, measured["most_wrong"], target / "most_wrong.png")
    report.write(folder, record, measured, rows)


def _history(file: Path) -> list[dict[str, float]]:
    with file.open(encoding="utf-8", newline="") as stream:
        history = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(stream)]
    if not history:
        raise ValueError(f"expected a line per epoch in {file.name}, received none")
    return history


def _draw_most_wrong(rows: NDArray[np.uint8], lines: Sequence[Mapping[str, Any]], file: Path) -> None:
    if not lines:
        file.unlink(missing_ok=True)  # of an earlier measurement
        return
    tiles = [
        Tile(row, f"is {short(line['truth'])}\nsaid {short(line['predicted'])} {line['confidence']:.0%}")
        for row, line in zip(rows, lines, strict=True)
    ]
    picture_grids.draw(tiles, file, title="mistakes of the highest loss on the test split", columns=8)


def _evaluated(run: runs.Run) -> dict[str, Any]:
    model = keras.saving.load_model(run.path / "model.keras", compile=False)
    rows, labels = run_arrays.read(run.path / "holdout.npz", "rows", "labels")
    measured = run.metrics() | measured_on_test(predict(model, rows), labels, run.record["labels"])
    runs.write_json(run.path / runs.METRICS, measured)
    draw(run.path, run.record, measured)
    return measured
