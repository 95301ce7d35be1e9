import numpy as np
import pytest

from server.errors import InvalidInput
from server.tensors import DTYPES, ORT_TYPES, InferRequest, TensorSpec

IMAGE = TensorSpec("image", "UINT8", (-1, 2, 3, 1))


def test_every_type_of_the_runtime_has_a_name_and_a_dtype() -> None:
    assert set(ORT_TYPES.values()) == set(DTYPES)


def test_a_tensor_that_fits() -> None:
    IMAGE.validate(np.zeros((5, 2, 3, 1), np.uint8))
    TensorSpec("x", "FP32", (-1, -1)).validate(np.zeros((1, 9), np.float32))
    TensorSpec("x", "FP32", ()).validate(np.array(1, np.float32))
    assert IMAGE.batched
    assert not TensorSpec("x", "FP32", (1, 2)).batched
    assert not TensorSpec("x", "FP32", ()).batched


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 2, 3, 1), np.float32), "expected UINT8 values for 'image', received float32"),
        (np.zeros((5, 2, 3), np.uint8), r"expected shape \[n, 2, 3, 1\] for 'image', received \[5, 2, 3\]"),
        (np.zeros((5, 3, 2, 1), np.uint8), r"received \[5, 3, 2, 1\]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_told_what_would(array: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        IMAGE.validate(array)


def test_requests_share_nothing() -> None:
    first, second = InferRequest(), InferRequest()
    assert first.inputs is not second.inputs
    assert first.images == second.images == ()
