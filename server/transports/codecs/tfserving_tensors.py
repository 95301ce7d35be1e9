"""TensorFlow's tensors to arrays and back.

    tensor_content ─────────▶ decode ─┐
    float_val, int_val, … ──▶ decode ─┴─▶ array ──▶ encode ──▶ float_val, int_val, …

Answers are in the field of their type, as TensorFlow Serving's are by default: many clients read `float_val` by hand.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from protos import tensorflow_pb2 as tf
from server.errors import InvalidInput
from server.tensors import Array
from server.transports.codecs.v2_tensors import datatype_of, decode_raw, decode_values

# Fewer values than the shape has room for are filled up with the last one: this is how much few bytes may ask for.
MAX_FILLED_BYTES: Final = 1 << 26
_VARINT_BITS: Final = 7
_PACKED: Final = 2  # the wire type of packed fields


class Form(NamedTuple):
    """How a type goes over the wire.

    Args:
        number: TensorFlow's of the type.
        field: The field of its values.
        datatype: This server's name of it.
    """

    number: tf.DataType.ValueType
    field: str
    datatype: str


FORMS: Final = (
    Form(tf.DT_BOOL, "bool_val", "BOOL"),
    Form(tf.DT_UINT8, "int_val", "UINT8"),
    Form(tf.DT_UINT16, "int_val", "UINT16"),
    Form(tf.DT_UINT32, "uint32_val", "UINT32"),
    Form(tf.DT_UINT64, "uint64_val", "UINT64"),
    Form(tf.DT_INT8, "int_val", "INT8"),
    Form(tf.DT_INT16, "int_val", "INT16"),
    Form(tf.DT_INT32, "int_val", "INT32"),
    Form(tf.DT_INT64, "int64_val", "INT64"),
    Form(tf.DT_HALF, "half_val", "FP16"),
    Form(tf.DT_FLOAT, "float_val", "FP32"),
    Form(tf.DT_DOUBLE, "double_val", "FP64"),
    Form(tf.DT_STRING, "string_val", "BYTES"),
)
BY_NUMBER: Final = {form.number: form for form in FORMS}
BY_DATATYPE: Final = {form.datatype: form for form in FORMS}
# Packed values of one size lie on the wire as they lie in memory. Read and written as such, 32,000 floats take 15 µs;
# as Python's numbers they take 1 to 3 ms.
_OF_ONE_SIZE: Final = {"bool_val": "?", "float_val": "<f4", "double_val": "<f8"}


def decode(name: str, tensor: tf.TensorProto) -> Array:
    """Reads a tensor.

    Args:
        name: Its name, for messages.
        tensor: As it came.

    Returns:
        An array of its shape; of `bytes` objects for DT_STRING.

    Raises:
        InvalidInput: The type is not served, or the values do not fill the shape.
    """
    form = BY_NUMBER.get(tensor.dtype)
    if form is None:
        known = ", ".join(tf.DataType.Name(form.number) for form in FORMS)
        raise InvalidInput(f"expected one of the types {known} for '{name}', received {_spell_type(tensor.dtype)}")
    if tensor.tensor_shape.unknown_rank:
        raise InvalidInput(f"expected the shape of '{name}', received an unknown one")
    dims = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        if form.datatype == "BYTES":
            raise InvalidInput(f"expected the strings of '{name}' in string_val, received them in tensor_content")
        return decode_raw(name, form.datatype, dims, tensor.tensor_content)
    return decode_values(name, form.datatype, dims, _fill(name, form, dims, _read_values(tensor, form)))


def encode(array: Array) -> tf.TensorProto:
    """Writes a tensor.

    Args:
        array: Numbers, or `bytes` objects.
    """
    form = BY_DATATYPE[datatype_of(array)]
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in array.shape])
    tensor = tf.TensorProto(dtype=form.number, tensor_shape=shape)
    if form.field in _OF_ONE_SIZE:
        tensor.MergeFromString(_pack(form.field, array))
        return tensor
    values = array.view(np.uint16) if form.datatype == "FP16" else array
    getattr(tensor, form.field).extend(values.ravel().tolist())
    return tensor


def _read_values(tensor: tf.TensorProto, form: Form) -> Sequence[Any] | Array:
    values = getattr(tensor, form.field)
    if form.field in _OF_ONE_SIZE:
        return _unpack(form.field, values)
    if form.field == "half_val":
        return _read_halves(values)
    return list(values)


def _read_halves(values: Sequence[int]) -> Array:
    try:
        return np.array(list(values), np.uint16).view(np.float16)
    except OverflowError as error:
        raise InvalidInput(f"expected the 16 bits of each number in half_val: {error}") from None


def _fill(name: str, form: Form, dims: tuple[int, ...], values: Sequence[Any] | Array) -> Sequence[Any] | Array:
    """As TensorFlow has it: the last value stands for those that are missing, and nothing for zeros."""
    if any(size < 0 for size in dims):
        raise InvalidInput(f"expected dimensions of 0 or more for '{name}', received {list(dims)}")
    count, given = math.prod(dims), len(values)
    if given >= count:
        return values
    first = decode_values(name, form.datatype, (given,), values)
    if count * first.itemsize > MAX_FILLED_BYTES:
        raise InvalidInput(
            f"expected {count:,} values for '{name}' {tf.DataType.Name(form.number)}{list(dims)}, received {given:,},"
            f" which may stand for at most {MAX_FILLED_BYTES // first.itemsize:,}"
        )
    filled = np.zeros(count, first.dtype)
    filled[:given] = first
    filled[given:] = first[-1] if given else b"" if form.datatype == "BYTES" else 0
    return filled


def _unpack(field: str, values: Sequence[Any]) -> Array:
    """The numbers of a packed field: they end the encoding of a message that holds nothing else."""
    alone = tf.TensorProto()
    getattr(alone, field).MergeFrom(values)
    encoded, dtype = alone.SerializeToString(), np.dtype(_OF_ONE_SIZE[field])
    return np.frombuffer(encoded, dtype, len(values), len(encoded) - len(values) * dtype.itemsize)


def _pack(field: str, array: Array) -> bytes:
    """A packed field of numbers of one size, as protobuf's encoding has it: tag, length, little-endian values."""
    if not array.size:
        return b""
    number = tf.TensorProto.DESCRIPTOR.fields_by_name[field].number
    values = array.astype(_OF_ONE_SIZE[field], copy=False).tobytes()
    return _varint(number << 3 | _PACKED) + _varint(len(values)) + values


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >> _VARINT_BITS:
        encoded.append(value & 0x7F | 0x80)
        value >>= _VARINT_BITS
    encoded.append(value)
    return bytes(encoded)


def _spell_type(number: int) -> str:
    return tf.DataType.Name(tf.DataType.ValueType(number)) if number in tf.DataType.values() else f"type {number}"
