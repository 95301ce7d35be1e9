"""Metrics against figures worked out by hand, and figures that are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # scikit-learn and matplotlib take half a second each to import

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25]], dtype=np.float32)
LABELS = np.array([0, 1, 1, 2])


@pytest.fixture(scope="module")
def metrics() -> Any:
    from training import metrics  # noqa: PLC0415

    return metrics


def test_report_by_hand(metrics: Any) -> None:
    report = metrics.report(PROBABILITIES, LABELS, ("a", "b", "c"))
    assert report["accuracy"] == 0.5
    assert report["rows"] == 4
    assert report["loss"] == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.25]).mean())
    assert report["confusion"] == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    first, second, third = report["classes"]
    assert first == {"label": "a", "precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "rows": 1}
    assert second == {"label": "b", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "rows": 2}
    assert third == {"label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 1}
    assert report["macro"] == pytest.approx({"precision": 4 / 9, "recall": 0.5, "f1": 7 / 18})
    assert report["weighted"] == pytest.approx({"precision": 7 / 12, "recall": 0.5, "f1": 11 / 24})
    assert report["top5_accuracy"] is None  # three classes: everything is among the first five


def test_certain_mistake_costs_a_finite_loss(metrics: Any) -> None:
    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    assert metrics.summary(certain, np.array([1]))["loss"] == pytest.approx(16.118, abs=1e-3)
    assert metrics.summary(certain, np.array([0]))["loss"] == 0


def test_top_accuracy_counts_the_most_probable_classes(metrics: Any) -> None:
    rising = np.tile(np.linspace(0, 0.25, 8, dtype=np.float32), (3, 1))  # classes 3 to 7 are the first five
    assert metrics.top_accuracy(rising, np.array([7, 3, 2])) == pytest.approx(2 / 3)
    assert metrics.top_accuracy(rising, np.array([7, 3, 2]), top=1) == pytest.approx(1 / 3)


def test_calibration_error_by_hand(metrics: Any) -> None:
    bins = metrics.reliability(PROBABILITIES, LABELS)
    # Each row is alone in its bin of a fifteenth; 0.8 and 0.7 are right, 0.6 and 0.5 are wrong.
    assert [one["accuracy"] for one in bins if one["rows"]] == [0.0, 0.0, 1.0, 1.0]
    assert metrics.ece(bins) == pytest.approx((0.2 + 0.6 + 0.3 + 0.5) / 4)


def test_rows_of_one_bin_are_averaged_before_they_are_compared(metrics: Any) -> None:
    # Half of the rows right at a confidence of 0.51 each: the bin is off by a hundredth, though every row is by a half.
    probabilities = np.full((10, 2), [0.51, 0.49], dtype=np.float32)
    bins = metrics.reliability(probabilities, np.array([0, 1] * 5))
    assert metrics.ece(bins) == pytest.approx(0.01, abs=1e-6)
    assert sum(one["rows"] for one in bins) == 10


def test_certainty_falls_into_the_last_bin(metrics: Any) -> None:
    bins = metrics.reliability(np.array([[1.0, 0.0]], dtype=np.float32), np.array([0]))
    assert bins[-1] == {"above": pytest.approx(14 / 15), "up_to": 1.0, "rows": 1, "confidence": 1.0, "accuracy": 1.0}
    assert metrics.ece(bins) == 0


def test_most_wrong_are_mistakes_by_falling_loss(metrics: Any) -> None:
    lines = metrics.most_wrong(PROBABILITIES, LABELS, ("a", "b", "c"))
    assert [line["row"] for line in lines] == [3, 1]
    assert (lines[0]["truth"], lines[0]["predicted"]) == ("c", "a")
    assert (lines[0]["confidence"], lines[0]["truth_probability"]) == (0.5, 0.25)
    assert lines[0]["loss"] == pytest.approx(-np.log(0.25))
    assert len(metrics.most_wrong(PROBABILITIES, LABELS, ("a", "b", "c"), count=1)) == 1


@pytest.mark.parametrize("classes", [2, 60])
def test_figures_are_drawn(metrics: Any, tmp_path: Path, classes: int) -> None:
    from training import figures  # noqa: PLC0415

    history = [
        {"epoch": 1, "loss": 2.0, "accuracy": 0.1, "val_loss": 2.1, "val_accuracy": 0.2, "learning_rate": 0.1},
        {"epoch": 2, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.6, "learning_rate": 0.1},
    ]
    # Two dollars would begin a formula, and the font has no Japanese: neither may end the drawing or warn.
    names = ["$a^$", "猫", *(f"class {i}" for i in range(classes - 2))]
    labels = np.arange(classes).repeat(3)
    report = metrics.report(np.eye(classes, dtype=np.float32)[labels], labels, names)
    figures.learning_curves(history, tmp_path / "curves.png")
    figures.confusion(report["confusion"], names, tmp_path / "confusion.png")
    figures.per_class(report["classes"], tmp_path / "classes.png")
    figures.reliability(report["reliability"], report["ece"], tmp_path / "reliability.png")
    for file in ("curves.png", "confusion.png", "classes.png", "reliability.png"):
        with Image.open(tmp_path / file) as drawn:
            assert len(np.unique(np.asarray(drawn.convert("L")))) > 10
