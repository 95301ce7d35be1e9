"""How good a model is, from its probabilities alone."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

TOP: Final = 5
BINS: Final = 15  # as in Guo et al. 2017, so that figures compare with published ones
MOST_WRONG: Final = 24

_SMALLEST_PROBABILITY: Final = 1e-7  # as in Keras's cross-entropy, so that a certain mistake costs 16.1, not infinity


def losses(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Measures each row's cross-entropy.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.

    Returns:
        `float64[n]`, in nats.
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    cost: NDArray[np.float64] = -np.log(np.clip(of_truth, _SMALLEST_PROBABILITY, 1.0))
    return cost


def summary(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Measures accuracy and loss.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.

    Returns:
        `accuracy` (top-1, 0..1), `loss` (mean cross-entropy in nats), `rows` (n).
    """
    return {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "loss": float(losses(probabilities, labels).mean()),
        "rows": len(labels),
    }


def report(probabilities: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Measures everything that `metrics.json` holds about a split.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.
        names: `names[i]` names class i.

    Returns:
        What `summary` returns, and `top5_accuracy` (nothing up to 5 classes), `macro` (unweighted means of precision,
        recall and F1), `weighted` (means weighted by the classes' rows), `ece` and `reliability` (see those
        functions), `classes` (precision, recall and F1 per class, with its rows) and `confusion` (rows: truth, columns:
        prediction).
    """
    predicted = probabilities.argmax(axis=1)
    every = np.arange(len(names))
    # A class that is never predicted has no precision; 0 is the honest score for it.
    scores = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0.0)
    precision, recall, f1, rows = (np.asarray(column, dtype=float) for column in scores)
    bins = reliability(probabilities, labels)
    return {
        **summary(probabilities, labels),
        "top5_accuracy": top_accuracy(probabilities, labels),
        "macro": _means(precision, recall, f1, np.ones(len(names))),
        "weighted": _means(precision, recall, f1, rows),
        "ece": ece(bins),
        "reliability": bins,
        "classes": [
            {"label": name, "precision": precision[i], "recall": recall[i], "f1": f1[i], "rows": int(rows[i])}
            for i, name in enumerate(names)
        ],
        "confusion": confusion_matrix(labels, predicted, labels=every).tolist(),
    }


def top_accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64], top: int = TOP) -> float | None:
    """Measures how often the truth is among the most probable classes.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.
        top: How many classes count.

    Returns:
        0..1, or nothing where `top` classes are all there are, which says nothing about a model.
    """
    if probabilities.shape[1] <= top:
        return None
    chosen = np.argpartition(-probabilities, top - 1, axis=1)[:, :top]
    return float(np.mean((chosen == labels[:, None]).any(axis=1)))


def reliability(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Sorts predictions into 15 equal bins of confidence, the probability of the predicted class.

    Source: the reliability diagram of Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.

    Returns:
        For each bin `above` and `up_to` (its bounds), `rows`, and their mean `confidence` and `accuracy`, which are
        nothing in an empty bin.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "above": index / BINS,
            "up_to": (index + 1) / BINS,
            **_bin(confidence[number == index], right[number == index]),
        }
        for index in range(BINS)
    ]


def ece(bins: Sequence[dict[str, Any]]) -> float:
    """Measures the expected calibration error: `Σ rows/n · |accuracy - confidence|`.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015; with 15 bins as in
    Guo et al. 2017, equation 3.

    Args:
        bins: What `reliability` returns.

    Returns:
        0 (confidence is accuracy) to 1.
    """
    total = sum(one["rows"] for one in bins)
    return float(sum(one["rows"] * abs(one["accuracy"] - one["confidence"]) for one in bins if one["rows"]) / total)


def most_wrong(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str], count: int = MOST_WRONG
) -> list[dict[str, Any]]:
    """Lists the wrongly classified rows of the highest loss.

    Args:
        probabilities: `float32[n, classes]`.
        labels: The true classes, `int64[n]`.
        names: `names[i]` names class i.
        count: At most so many.

    Returns:
        The worst first: `row`, `truth` and `predicted` (names), `confidence` (of the prediction), `truth_probability`
        and `loss`.
    """
    predicted, cost = probabilities.argmax(axis=1), losses(probabilities, labels)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-cost[wrong], kind="stable")][:count]
    return [
        {
            "row": row,
            "truth": names[labels[row]],
            "predicted": names[predicted[row]],
            "confidence": float(probabilities[row, predicted[row]]),
            "truth_probability": float(probabilities[row, labels[row]]),
            "loss": float(cost[row]),
        }
        for row in worst.tolist()
    ]


def _means(
    precision: NDArray[np.float64], recall: NDArray[np.float64], f1: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, float]:
    columns = {"precision": precision, "recall": recall, "f1": f1}
    return {name: float(np.average(column, weights=weights)) for name, column in columns.items()}


def _bin(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    if not len(right):
        return {"rows": 0, "confidence": None, "accuracy": None}
    return {"rows": len(right), "confidence": float(confidence.mean()), "accuracy": float(right.mean())}
