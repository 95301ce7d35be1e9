"""Bare numbers become rows of pixels: what `{"data": […]}` and a uint8 tensor of the plain interfaces go through.

    numbers ──which scale?──▶ uint8 0..255 ──which shape?──▶ uint8[n, h, w, c]

Pure. Whatever is ambiguous is refused with the question to answer, never guessed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.images import ImageSpec
from server.tensors import Array, Numbers, TensorSpec

LARGEST: Final = {"0-255": 255, "0-1": 1}
SAY_SCALE: Final = 'add "scale": "0-255" or "scale": "0-1" to the request'


def to_rows(numbers: Numbers, image: ImageSpec) -> NDArray[np.uint8]:
    """Fits numbers to a model's image input.

    Args:
        numbers: One picture, flat or nested, or a list of pictures, flat or nested.
        image: What the model takes.

    Returns:
        `uint8[n, height, width, channels]`.

    Raises:
        InvalidInput: The shape fits no picture, a value is out of range, or the range is ambiguous.
    """
    values = numbers.values
    rows = values.reshape(rows_shape(values.shape, image))
    if rows.dtype == np.uint8 and numbers.scale == "0-255":
        return rows
    return _to_uint8(rows, numbers.scale)


def to_tensor(numbers: Numbers, spec: TensorSpec) -> Array:
    """Fits numbers to the only input of a model that takes no pictures.

    Args:
        numbers: In the tensor's shape; one row may leave the first dimension out.
        spec: The input.

    Raises:
        InvalidInput: The shape differs, or a number cannot be told in the input's type.
    """
    values = numbers.values
    if spec.batched and values.ndim == len(spec.shape) - 1:
        values = values[None]
    if spec.dtype.kind not in "iuf" or numbers.scale:
        raise InvalidInput(
            f"expected tensors of type {spec.datatype} for '{spec.name}', received"
            f" {'a scale, which is for pictures' if numbers.scale else 'numbers'}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        tensor = values.astype(spec.dtype)
    if spec.dtype.kind in "iu" and not np.array_equal(tensor, values):
        raise InvalidInput(f"expected numbers that {spec.datatype} can hold for '{spec.name}', received others")
    spec.validate(tensor)
    return tensor


def rows_shape(shape: tuple[int, ...], image: ImageSpec) -> tuple[int, int, int, int]:
    """The shape `(n, height, width, channels)` that numbers of `shape` stand for.

    Args:
        shape: `[h*w*c]`, `[h, w, c]`, `[n, h*w*c]` or `[n, h, w, c]`; greyscale may leave `c` out.
        image: What the model takes.

    Raises:
        InvalidInput: It is none of these.
    """
    height, width, channels = image.shape
    one = [(height * width * channels,), image.shape]
    if channels == 1:
        one.append((height, width))
    if shape in one:
        return 1, *image.shape
    if shape[1:] in one and shape[0] > 0:
        return shape[0], *image.shape
    accepted = " or ".join(_spell(sizes) for sizes in one)
    raise InvalidInput(
        f"expected one picture as {accepted} numbers, or a list of such pictures, received {_spell(shape)};"
        " see /model-info for the model's input shape"
    )


def _to_uint8(values: Array, scale: str) -> NDArray[np.uint8]:
    if values.dtype.kind not in "iuf":
        raise InvalidInput(f"expected numbers, received values of type {values.dtype}")
    low, high = values.min(), values.max()
    scale = scale or _guess_scale(values, float(high))
    # Written so that a NaN, which compares as false with everything, is refused too.
    if not (low >= 0 and high <= LARGEST[scale]):
        raise InvalidInput(f"expected values within {scale.replace('-', '..')}, received {low:g} to {high:g}")
    if scale == "0-255" and values.dtype.kind != "f":
        return values.astype(np.uint8, copy=False)
    return np.rint(values * np.float64(255 / LARGEST[scale])).astype(np.uint8)


def _guess_scale(values: Array, high: float) -> str:
    """The one range that the values can be in.

    Whole numbers with one above 1 are 0..255. Fractions up to 1 are 0..1. Only zeros and ones could be either, and so
    could fractions above 1 (resized 0..255, or 0..1 that overshot).
    """
    whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
    if whole and high > 1:
        return "0-255"
    if not whole and high <= 1:
        return "0-1"
    received = "only zeros and ones" if whole else f"fractions and values up to {high:g}"
    raise InvalidInput(f"received {received}, which may be 0..255 or 0..1; {SAY_SCALE}")


def _spell(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
