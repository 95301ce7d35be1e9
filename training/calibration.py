"""Temperature scaling: one number that makes confidence mean accuracy, folded into the model's last weights.

    validation probabilities ──minimise NLL──▶ T ──ECE and NLL lower?──▶ kernel / T, bias / T ──same answers?──▶ kept

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2: `softmax(logits / T)`. The last
layer is linear up to its softmax, so dividing its weights by T is the same function: whoever loads the model needs to
know nothing of it, and no prediction changes.
"""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from training import metrics
from training.model_layers import flat_layers
from training.prediction import predict

TEMPERATURES: Final = (0.05, 20.0)
SMALLEST_CHANGE: Final = 0.01  # of the temperature; less moves no probability by a percent
CHECKED_ROWS: Final = 256
TOLERANCE: Final = 1e-4  # of a probability; the same product in another order of float32 operations


@dataclass(frozen=True, slots=True)
class Fit:
    """What a temperature does to the validation split.

    Args:
        temperature: That minimises the negative log likelihood; above 1 the model was too sure.
        rows: It was fitted on.
        nll_before: Mean negative log likelihood in nats, at a temperature of 1.
        nll_after: At the temperature.
        ece_before: Expected calibration error, 0..1, at a temperature of 1.
        ece_after: At the temperature.
    """

    temperature: float
    rows: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    @property
    def objection(self) -> str:
        """Why the temperature is of no use, or nothing."""
        if abs(self.temperature - 1) < SMALLEST_CHANGE:
            return f"the temperature {self.temperature:.3f} is as good as 1"
        if self.nll_after >= self.nll_before or self.ece_after >= self.ece_before:
            return "it does not lower both the loss and the calibration error on the validation split"
        return ""


def softened(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Returns `softmax(logits / T)`, worked out from `softmax(logits)`.

    Args:
        probabilities: `float32[n, classes]`.
        temperature: T; 1 changes nothing, `1 / T` undoes T.

    Returns:
        `float32[n, classes]`. A probability of exactly 0 stays 0.
    """
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities.astype(np.float64)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True), dtype=np.float32)


def fit(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Fit:
    """Finds the temperature at which the labels are most likely.

    Args:
        probabilities: `float32[n, classes]`, of rows that the model was not trained on.
        labels: Their classes, `int64[n]`.
    """

    def nll(log_temperature: float) -> float:
        return float(metrics.losses(softened(probabilities, float(np.exp(log_temperature))), labels).mean())

    # The loss is convex in 1 / T, so a bounded search finds its one minimum.
    found = minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(found.x))
    after = softened(probabilities, temperature)
    return Fit(
        temperature=temperature,
        rows=len(labels),
        nll_before=nll(0.0),
        nll_after=float(found.fun),
        ece_before=metrics.ece(metrics.reliability(probabilities, labels)),
        ece_after=metrics.ece(metrics.reliability(after, labels)),
    )


def calibrate(
    model: Any, rows: NDArray[np.uint8], probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Fits a temperature on the validation split and folds it into the model, if that helps and is exact.

    Args:
        model: Ends in a dense layer and a softmax; its last weights are changed, or else nothing is.
        rows: The validation split, `uint8[n, h, w, c]`, or its first rows: a few serve to check the result.
        probabilities: The model's answers to the whole split, `float32[n, classes]`.
        labels: Its classes, `int64[n]`.

    Returns:
        What `metrics.json` holds as `calibration`: `applied`, `reason` (why not), and the fields of `Fit`.
    """
    fitted = fit(probabilities, labels)
    reason = fitted.objection
    if not reason:
        checked = rows[:CHECKED_ROWS]
        expected = softened(probabilities[: len(checked)], fitted.temperature)
        reason = fold(model, fitted.temperature, checked, expected)
    return {
        "method": "temperature scaling",
        "applied": not reason,
        "reason": reason,
        **{name: getattr(fitted, name) for name in Fit.__slots__},
    }


def fold(model: Any, temperature: float, rows: NDArray[np.uint8], expected: NDArray[np.float32]) -> str:
    """Divides the last dense layer's weights by a temperature, and puts them back if the answers are not as expected.

    Models end in many ways (a softmax inside the layer or after it, two classes from one sigmoid), so the answers
    decide, not the layers' names.

    Args:
        model: Its last dense layer's weights are changed.
        temperature: To divide by.
        rows: To check on, `uint8[n, h, w, c]`.
        expected: Probabilities of them at the temperature, `float32[n, classes]`.

    Returns:
        Nothing if the model now answers as expected, or else why it was left as it was.
    """
    layer = next((layer for layer in reversed(flat_layers(model)) if isinstance(layer, keras.layers.Dense)), None)
    if layer is None:
        return "the model has no dense layer to fold the temperature into"
    before = layer.get_weights()
    layer.set_weights([weights / np.float32(temperature) for weights in before])
    answers = predict(model, rows)
    if np.abs(answers - expected).max() <= TOLERANCE:
        return ""
    layer.set_weights(before)
    return (
        f"the model does not end in its dense layer '{layer.name}' and a softmax, so a temperature cannot be folded in"
    )
