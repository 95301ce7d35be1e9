"""Metrics against figures worked out by hand, and figures that are drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25]], dtype=np.float32)
LABELS = np.array([0, 1, 1, 2])


@pytest.mark.slow
def test_report_by_hand() -> None:
    from training import metrics  # noqa: PLC0415 (scikit-learn is slow to import)

    report = metrics.report(PROBABILITIES, LABELS, ("a", "b", "c"))
    assert report["accuracy"] == 0.5
    assert report["rows"] == 4
    assert report["loss"] == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.25]).mean())
    assert report["confusion"] == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    first, second, third = report["classes"]
    assert first == {"label": "a", "precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "rows": 1}
    assert second == {"label": "b", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "rows": 2}
    assert third == {"label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 1}
    assert report["macro"]["recall"] == pytest.approx(0.5)


@pytest.mark.slow
def test_certain_mistake_costs_a_finite_loss() -> None:
    from training import metrics  # noqa: PLC0415 (scikit-learn is slow to import)

    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    assert metrics.summary(certain, np.array([1]))["loss"] == pytest.approx(16.118, abs=1e-3)
    assert metrics.summary(certain, np.array([0]))["loss"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 60])
def test_figures_are_drawn(tmp_path: Path, classes: int) -> None:
    from training import figures  # noqa: PLC0415 (matplotlib is slow to import)

    history = [
        {"epoch": 1, "loss": 2.0, "accuracy": 0.1, "val_loss": 2.1, "val_accuracy": 0.2},
        {"epoch": 2, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.6},
    ]
    figures.learning_curves(history, tmp_path / "curves.png")
    matrix = np.eye(classes, dtype=int) * 3
    figures.confusion(matrix.tolist(), [f"class {i}" for i in range(classes)], tmp_path / "confusion.png")
    for file in ("curves.png", "confusion.png"):
        with Image.open(tmp_path / file) as drawn:
            assert len(np.unique(np.asarray(drawn.convert("L")))) > 10
