"""Measures a finished run again, from its own folder: no data set is needed."""

import csv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training import console, figures, metrics, runs
from training.errors import TrainingError

BATCH_ROWS: Final = 256


def evaluate(run: runs.Run) -> dict[str, Any]:
    """Measures a run's model on its held-out rows and rewrites `metrics.json` and the figures.

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


def predict(model: Any, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Runs a model over many rows.

    Args:
        model: From pixels to probabilities.
        rows: `uint8[n, h, w, c]`.

    Returns:
        `float32[n, classes]`.
    """
    parts = []
    with console.progress("evaluating", len(rows)) as advance:
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            parts.append(np.asarray(model.predict_on_batch(batch), dtype=np.float32))
            advance(len(batch))
    return np.concatenate(parts)


def draw(folder: Path, measured: Mapping[str, Any], names: Sequence[str]) -> None:
    """Draws a run's figures into `figures/`.

    Args:
        folder: The run folder, with `history.csv` in place.
        measured: What `metrics.json` holds.
        names: `names[i]` names class i.
    """
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    with (folder / "history.csv").open(encoding="utf-8", newline="") as stream:
        history = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(stream)]
    figures.learning_curves(history, target / "learning_curves.png")
    figures.confusion(measured["test"]["confusion"], names, target / "confusion_matrix.png")


def _evaluated(run: runs.Run) -> dict[str, Any]:
    model = keras.saving.load_model(run.path / "model.keras", compile=False)
    with np.load(run.path / "holdout.npz") as holdout:
        rows, labels = holdout["rows"], holdout["labels"]
    names = run.record["labels"]
    measured = run.metrics() | {"test": metrics.report(predict(model, rows), labels, names)}
    runs.write_json(run.path / runs.METRICS, measured)
    draw(run.path, measured, names)
    return measured
