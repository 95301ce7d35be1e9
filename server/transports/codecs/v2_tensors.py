"""The Open Inference Protocol's tensors: bytes or lists of values, with a type and a shape, to arrays and back.

    raw bytes ─────▶ decode_raw ────┐
    typed values ──▶ decode_values ─┴─▶ array ──▶ encode_raw ──▶ raw bytes

Raw numbers are little-endian and row-major. A raw BYTES element is preceded by its length in 4 bytes.
"""

import math
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from server.errors import InvalidInput
from server.tensors import DTYPES, Array

NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH: Final = struct.Struct("<I")
# What `DTYPES` holds is native; the wire is little-endian.
_SWAPPED: Final = sys.byteorder == "big"


def decode_raw(name: str, datatype: str, shape: Iterable[int], data: bytes | memoryview) -> Array:
    """Reads a tensor from its bytes, without a copy where the memory allows it.

    Args:
        name: The tensor's, for messages.
        datatype: The protocol's name of its type.
        shape: Its dimensions.
        data: Its elements.

    Returns:
        An array of that shape; of `bytes` objects for BYTES.

    Raises:
        InvalidInput: The type is unknown, or the bytes do not fill the shape.
    """
    dtype, dims = _dtype_of(name, datatype), tuple(shape)
    count = _count(name, dims)
    if dtype.hasobject:
        return _fill(split_bytes(name, data, count), dims)
    if len(data) != count * dtype.itemsize:
        raise InvalidInput(
            f"expected {count * dtype.itemsize:,} bytes for '{name}' {datatype}{list(dims)}, received {len(data):,}"
        )
    if datatype == "BOOL":  # any byte but 0 is true, which NumPy does not know
        array: Array = np.frombuffer(data, np.uint8).astype(np.bool_)
    else:
        array = np.frombuffer(data, dtype)
        array = array.byteswap() if _SWAPPED else array
    # Behind a JSON header of odd length a tensor begins anywhere; the model reads whole words.
    return _shaped(name, array if array.flags.aligned else array.copy(), dims)


def decode_values(name: str, datatype: str, shape: Iterable[int], values: Sequence[Any] | Array) -> Array:
    """Makes a tensor of its values.

    Args:
        name: The tensor's, for messages.
        datatype: The protocol's name of its type.
        shape: Its dimensions.
        values: Its elements, row-major: numbers that the type can hold, or `bytes`.

    Raises:
        InvalidInput: The type is unknown, the values are too many or too few, or one is beyond the type's range.
    """
    dtype, dims = _dtype_of(name, datatype), tuple(shape)
    count = _count(name, dims)
    if len(values) != count:
        raise InvalidInput(f"expected {count:,} values for '{name}' {datatype}{list(dims)}, received {len(values):,}")
    if dtype.hasobject:
        return _fill(values, dims)
    try:
        with np.errstate(over="raise"):
            return _shaped(name, np.array(values, dtype), dims)
    except (OverflowError, FloatingPointError) as error:
        raise InvalidInput(f"expected values that fit {datatype} for '{name}': {error}") from None


def holds_bytes(datatype: str) -> bool:
    """Whether a type is one of numbers that has every whole number from 0 to 255.

    Args:
        datatype: The protocol's name of it.
    """
    dtype = DTYPES.get(datatype)
    return dtype is not None and dtype.kind in "iuf" and np.can_cast(np.uint8, dtype)


def encode_raw(array: Array) -> bytes:
    """A tensor's bytes.

    Args:
        array: Numbers, or `bytes` objects.
    """
    if array.dtype.hasobject:
        return b"".join(_LENGTH.pack(len(element)) + element for element in array.ravel())
    return (array.byteswap() if _SWAPPED else array).tobytes()


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's type."""
    return NAMES[array.dtype]


def split_bytes(name: str, data: bytes | memoryview, count: int) -> list[bytes]:
    """Splits a BYTES tensor into its elements.

    Args:
        name: The tensor's, for messages.
        data: Elements, each behind its length.
        count: How many.

    Raises:
        InvalidInput: There are more or fewer, or one is cut short.
    """
    elements, position = [], 0
    for _ in range(min(count, len(data) // _LENGTH.size)):
        start = position + _LENGTH.size
        if start > len(data):
            break
        position = start + _LENGTH.unpack_from(data, position)[0]
        elements.append(bytes(data[start:position]))
    if len(elements) != count or position != len(data):
        raise InvalidInput(
            f"expected {count:,} elements for '{name}' in {len(data):,} bytes, each behind its length in 4 bytes"
            f" little-endian; the lengths received add up to {position:,} bytes in {len(elements):,} elements"
        )
    return elements


def _dtype_of(name: str, datatype: str) -> np.dtype[Any]:
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(f"expected one of the datatypes {', '.join(DTYPES)} for '{name}', received {datatype!r:.40}")
    return dtype


def _count(name: str, dims: tuple[int, ...]) -> int:
    if any(size < 0 for size in dims):
        raise InvalidInput(f"expected dimensions of 0 or more for '{name}', received {list(dims)}")
    return math.prod(dims)


def _fill(elements: Sequence[Any] | Array, dims: tuple[int, ...]) -> Array:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(dims)


def _shaped(name: str, array: Array, dims: tuple[int, ...]) -> Array:
    try:
        return array.reshape(dims)
    except ValueError as error:  # no elements, but dimensions beyond all memory or more than NumPy has
        raise InvalidInput(f"expected a shape that can be for '{name}', received {list(dims)}: {error}") from None
