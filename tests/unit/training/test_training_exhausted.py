"""What ran out, memory or a disk, told from several frameworks' errors; evaluation where memory is short."""

import errno
import os
from typing import Any

import numpy as np
import pytest

from training import exhausted
from training.errors import TrainingError
from training.prediction import predict


class XlaRuntimeError(RuntimeError):
    """By the name of JAX's, which is not imported where another backend is at work."""


class ResourceExhaustedError(Exception):
    """By the name of TensorFlow's."""


OOM = ResourceExhaustedError("OOM when allocating tensor with shape[256,32]")


@pytest.mark.parametrize(
    "error", [MemoryError(), OOM, XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")]
)
def test_memory_ran_out(error: Exception) -> None:
    assert exhausted.is_memory(error)
    assert not exhausted.is_disk(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        ResourceExhaustedError("{{function_node __wrapped__FlushSummaryWriter}} events.v2; No space left on device"),
        ResourceExhaustedError("runs/d; Disk quota exceeded"),
    ],
)
def test_the_disk_is_full(error: Exception) -> None:
    assert exhausted.is_disk(error)
    assert not exhausted.is_memory(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "none"), XlaRuntimeError("INVALID_ARGUMENT: shapes"), RuntimeError("OOM")]
)
def test_nothing_ran_out(error: Exception) -> None:
    assert not exhausted.is_memory(error)
    assert not exhausted.is_disk(error)


class Model:
    """Returns what it is given, at most so many rows at once."""

    def __init__(self, most_rows: int, error: Exception = OOM) -> None:
        self.most_rows = most_rows
        self.error = error
        self.batches: list[int] = []

    def predict_on_batch(self, rows: Any) -> Any:
        if len(rows) > self.most_rows:
            raise self.error
        self.batches.append(len(rows))
        return rows


def test_evaluation_halves_its_batches_until_they_fit() -> None:
    model = Model(most_rows=100)
    rows = (np.arange(300) % 256).astype(np.uint8)[:, None]
    assert (predict(model, rows) == rows).all()
    assert model.batches == [64, 64, 64, 64, 44]


def test_evaluation_that_fits_no_row_is_told_and_other_errors_stay() -> None:
    rows = np.zeros((5, 1), np.uint8)
    with pytest.raises(TrainingError, match="evaluate one row within the device's memory, it does not"):
        predict(Model(most_rows=0), rows)
    with pytest.raises(ValueError, match="shapes"):
        predict(Model(most_rows=0, error=ValueError("shapes")), rows)
