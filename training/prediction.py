"""A model's answers to many rows, a batch at a time."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training import console, exhausted
from training.errors import TrainingError

BATCH_ROWS: Final = 256


def predict(model: Any, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Runs a model over many rows, of which fewer at once where memory is short.

    Args:
        model: From pixels to probabilities.
        rows: `uint8[n, h, w, c]`.

    Returns:
        `float32[n, classes]`.

    Raises:
        TrainingError: Not even one row fits into memory.
    """
    parts: list[NDArray[np.float32]] = []
    done, at_once = 0, BATCH_ROWS
    with console.progress("evaluating", len(rows)) as advance:
        while done < len(rows):
            batch = rows[done : done + at_once]
            answers = _answers(model, batch)
            if answers is None:
                at_once = len(batch) // 2
                continue
            parts.append(answers)
            done += len(batch)
            advance(len(batch))
    return np.concatenate(parts)


def _answers(model: Any, batch: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Runs a model over a batch; returns nothing if it does not fit into memory and a smaller one might."""
    try:
        return np.asarray(model.predict_on_batch(batch), dtype=np.float32)
    except Exception as error:
        if not exhausted.is_memory(error):
            raise
        if len(batch) == 1:
            raise TrainingError(
                "expected the model to evaluate one row within the device's memory, it does not; make pictures smaller"
                " by --image-size, or choose a smaller model"
            ) from error
        return None
