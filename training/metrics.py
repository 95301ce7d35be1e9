"""How good a model is, from its probabilities alone."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

_SMALLEST_PROBABILITY: Final = 1e-7  # as in Keras's cross-entropy, so that a certain mistake costs 16.1, not infinity


def summary(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Measures accuracy and loss.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.

    Returns:
        `accuracy` (top-1, 0..1), `loss` (mean cross-entropy in nats), `rows` (n).
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "loss": float(-np.log(np.clip(of_truth, _SMALLEST_PROBABILITY, 1.0)).mean()),
        "rows": len(labels),
    }


def report(probabilities: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Measures everything that `metrics.json` holds about a split.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.
        names: `names[i]` names class i.

    Returns:
        What `summary` returns, and `macro` (unweighted means of precision, recall and F1), `classes` (the same per
        class, with its rows) and `confusion` (rows: truth, columns: prediction).
    """
    predicted = probabilities.argmax(axis=1)
    every = np.arange(len(names))
    # A class that is never predicted has no precision; 0 is the honest score for it.
    scores = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0.0)
    precision, recall, f1, rows = (np.asarray(column, dtype=float) for column in scores)
    return {
        **summary(probabilities, labels),
        "macro": {"precision": float(precision.mean()), "recall": float(recall.mean()), "f1": float(f1.mean())},
        "classes": [
            {"label": name, "precision": precision[i], "recall": recall[i], "f1": f1[i], "rows": int(rows[i])}
            for i, name in enumerate(names)
        ],
        "confusion": confusion_matrix(labels, predicted, labels=every).tolist(),
    }
