"""Tensors against what a model takes: the one input that most have, and several."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from server.errors import InvalidInput
from server.payload import count_rows, tensors_of
from server.tensors import Array, InferRequest, TensorSpec
from server.versions import LoadedModel

X, Y = TensorSpec("x", "UINT8", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))
FLAT = TensorSpec("w", "UINT8", (-1,))
FIXED = TensorSpec("z", "UINT8", (3,))
ROWS: Array = np.zeros((4, 2), np.uint8)


@dataclass
class Model:
    inputs: tuple[TensorSpec, ...]
    name: str = "m"


def model(*inputs: TensorSpec) -> LoadedModel:
    return cast(LoadedModel, Model(inputs))


@pytest.mark.parametrize(
    ("specs", "inputs", "rows"),
    [
        ((X,), {"x": ROWS}, 4),
        ((X, Y), {"x": ROWS, "y": ROWS.astype(np.float32)}, 4),
        ((FIXED,), {"z": np.zeros(3, np.uint8)}, 1),
        ((FIXED, X), {"x": ROWS, "z": np.zeros(3, np.uint8)}, 4),
    ],
)
def test_what_fits_is_given_on_and_counted(specs: tuple[TensorSpec, ...], inputs: dict[str, Any], rows: int) -> None:
    assert tensors_of(InferRequest(inputs=inputs), model(*specs)) is inputs
    assert count_rows(inputs, model(*specs)) == rows


@pytest.mark.parametrize(
    ("specs", "inputs", "told"),
    [
        ((X,), {}, "received none"),
        ((X,), {"w": ROWS}, "received 'w'"),
        ((X,), {"x": ROWS, "y": ROWS}, "received 'x', 'y'"),
        ((X,), {"x": ROWS.astype(np.int8)}, "expected UINT8 values for 'x', received int8"),
        ((X,), {"x": np.zeros((4, 3), np.uint8)}, r"expected shape \[n, 2\] for 'x', received \[4, 3\]"),
        ((X,), {"x": np.zeros((), np.uint8)}, r"expected shape \[n, 2\] for 'x', received \[\]"),
        ((FLAT,), {"w": np.zeros((), np.uint8)}, r"expected shape \[n\] for 'w', received \[\]"),
        ((X,), {"x": ROWS[:0]}, "at least one row"),
        ((X, Y), {"x": ROWS[:0], "y": ROWS[:0].astype(np.float32)}, "at least one row"),
        ((X, Y), {"x": ROWS, "y": ROWS[:1].astype(np.float32)}, r"as many rows in each input, received \[1, 4\]"),
        ((FIXED,), {"z": np.zeros(4, np.uint8)}, r"expected shape \[3\] for 'z', received \[4\]"),
    ],
)
def test_what_does_not_fit_is_told(specs: tuple[TensorSpec, ...], inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        tensors_of(InferRequest(inputs=inputs), model(*specs))
