import numpy as np
import pytest

from server.errors import InvalidInput
from server.images import ImageSpec
from server.pixels import rows_shape, to_rows, to_tensor
from server.tensors import Numbers, TensorSpec

GREY = ImageSpec(2, 3, 1)
RGB = ImageSpec(2, 3, 3)


@pytest.mark.parametrize(
    ("shape", "spec", "rows"),
    [
        ((6,), GREY, 1),
        ((2, 3), GREY, 1),
        ((2, 3, 1), GREY, 1),
        ((5, 6), GREY, 5),
        ((5, 2, 3), GREY, 5),
        ((5, 2, 3, 1), GREY, 5),
        ((18,), RGB, 1),
        ((2, 3, 3), RGB, 1),
        ((4, 18), RGB, 4),
        ((4, 2, 3, 3), RGB, 4),
    ],
)
def test_accepted_shapes(shape: tuple[int, ...], spec: ImageSpec, rows: int) -> None:
    assert rows_shape(shape, spec) == (rows, *spec.shape)


@pytest.mark.parametrize("shape", [(), (5,), (3, 2), (0, 6), (12,), (1, 1, 2, 3, 1), (2, 3, 3), (6, 1)])
def test_refused_shapes_are_named_with_what_would_do(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"\[6\] or \[2, 3, 1\] or \[2, 3\]"):
        rows_shape(shape, GREY)


def test_colour_needs_its_channels() -> None:
    with pytest.raises(InvalidInput, match=r"\[18\] or \[2, 3, 3\] numbers"):
        rows_shape((2, 3), RGB)


def numbers(*values: float, scale: str = "", dtype: type = np.float64) -> Numbers:
    return Numbers(np.array(values, dtype), scale)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (numbers(0, 1, 2, 3, 254, 255, dtype=np.uint8), [0, 1, 2, 3, 254, 255]),
        (numbers(0, 1, 2, 3, 254, 255), [0, 1, 2, 3, 254, 255]),
        (numbers(0, 0.5, 1, 0.25, 0.002, 0.001), [0, 128, 255, 64, 1, 0]),
        (numbers(0, 1, 1, 0, 0, 1, scale="0-1"), [0, 255, 255, 0, 0, 255]),
        (numbers(0, 1, 1, 0, 0, 1, scale="0-1", dtype=np.uint8), [0, 255, 255, 0, 0, 255]),
        (numbers(0, 1, 1, 0, 0, 1, scale="0-255"), [0, 1, 1, 0, 0, 1]),
        (numbers(0, 1, 1, 0, 0, 1, scale="0-255", dtype=np.uint8), [0, 1, 1, 0, 0, 1]),
        (numbers(0, 0.4, 0.6, 99.5, 100.5, 254.9, scale="0-255"), [0, 0, 1, 100, 100, 255]),
        (numbers(0, 1, 1, 0, 0, 1, scale="0-255", dtype=np.int64), [0, 1, 1, 0, 0, 1]),
    ],
)
def test_values_by_scale(given: Numbers, expected: list[int]) -> None:
    rows = to_rows(given, GREY)
    assert rows.dtype == np.uint8
    assert rows.shape == (1, 2, 3, 1)
    assert rows.ravel().tolist() == expected


def test_every_byte_survives_the_way_over_fractions() -> None:
    levels = np.arange(256)
    rows = to_rows(Numbers(levels / 255, "0-1"), ImageSpec(16, 16, 1))
    assert rows.ravel().tolist() == levels.tolist()


@pytest.mark.parametrize(
    "given",
    [
        numbers(0, 0, 0, 0, 0, 0),
        numbers(1, 1, 1, 1, 1, 1),
        numbers(0, 1, 0, 1, 0, 1, dtype=np.uint8),
        numbers(0.5, 0, 0, 0, 0, 1.0000001),
        numbers(1.5, 0, 0, 0, 0, 200),
    ],
)
def test_what_could_be_either_asks_for_the_scale(given: Numbers) -> None:
    with pytest.raises(InvalidInput, match='add "scale"'):
        to_rows(given, GREY)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (numbers(0, 0, 0, 0, 0, 256), "0..255, received 0 to 256"),
        (numbers(0, 0, 0, 0, -1, 7), "received -1 to 7"),
        (numbers(0, 0, 0, 0, -0.5, 0.5), "0..1, received -0.5 to 0.5"),
        (numbers(0, 0, 0, 0, 0, 2, scale="0-1"), "0..1, received 0 to 2"),
        (numbers(0, 0, 0, 0, 0, np.nan, scale="0-1"), "0..1, received nan"),
        (numbers(0, 0, 0, 0, 0, np.inf, scale="0-255"), "received 0 to inf"),
        (Numbers(np.zeros(6, np.bool_)), "type bool"),
        (Numbers(np.array(["a"] * 6)), "type <U1"),
    ],
)
def test_values_that_are_refused(given: Numbers, words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        to_rows(given, GREY)
    assert words in str(raised.value)


FLOATS = TensorSpec("x", "FP32", (-1, 2))


def test_numbers_for_a_model_without_pictures() -> None:
    row = to_tensor(numbers(0.5, 2), FLOATS)
    assert row.dtype == np.float32
    assert row.tolist() == [[0.5, 2]]
    rows = to_tensor(Numbers(np.array([[1, 2], [3, 4]], np.uint8)), TensorSpec("x", "INT64", (-1, 2)))
    assert rows.dtype == np.int64
    assert rows.tolist() == [[1, 2], [3, 4]]
    whole = TensorSpec("x", "FP32", (2,))
    assert to_tensor(numbers(1, 2), whole).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "spec", "words"),
    [
        (numbers(1, 2, 3), FLOATS, "shape"),
        (numbers(1, 2, scale="0-1"), FLOATS, "for pictures"),
        (numbers(1, 2), TensorSpec("x", "BYTES", (-1, 2)), "BYTES"),
        (numbers(1.5, 2), TensorSpec("x", "INT8", (-1, 2)), "INT8 can hold"),
        (numbers(1, 300), TensorSpec("x", "INT8", (-1, 2)), "INT8 can hold"),
    ],
)
def test_numbers_that_no_tensor_takes(given: Numbers, spec: TensorSpec, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        to_tensor(given, spec)
