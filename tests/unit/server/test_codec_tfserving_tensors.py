"""TensorFlow's tensors: both forms, every type, missing values, and nothing but InvalidInput for the rest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protos import tensorflow_pb2 as tf
from server.errors import InvalidInput
from server.tensors import DTYPES, Array
from server.transports.codecs.tfserving_tensors import BY_DATATYPE, FORMS, MAX_FILLED_BYTES, decode, encode

SMALL: dict[str, list[Any]] = {
    "BOOL": [True, False],
    **{name: [0, 200] for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    **{name: [-100, 100] for name in ("INT8", "INT16", "INT32", "INT64")},
    **{name: [0.5, -2.0] for name in ("FP16", "FP32", "FP64")},
}


def shape(*sizes: int) -> tf.TensorShapeProto:
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in sizes])


def array_of(datatype: str, values: list[Any]) -> Array:
    array = np.empty(len(values), DTYPES[datatype])
    array[:] = values
    return array


def test_every_type_has_a_form() -> None:
    assert [form.datatype for form in FORMS] == list(DTYPES)


@pytest.mark.parametrize("datatype", SMALL)
def test_numbers_come_as_bytes_too(datatype: str) -> None:
    array = array_of(datatype, SMALL[datatype])
    tensor = tf.TensorProto(
        dtype=BY_DATATYPE[datatype].number, tensor_shape=shape(1, 2), tensor_content=array.tobytes()
    )
    decoded = decode("x", tensor)
    assert decoded.dtype == array.dtype
    assert decoded.tolist() == [array.tolist()]


@pytest.mark.parametrize("datatype", [*SMALL, "BYTES"])
@pytest.mark.parametrize("dims", [(), (0,), (0, 3), (1,), (2, 1), (1, 1, 2)])
def test_there_and_back(datatype: str, dims: tuple[int, ...]) -> None:
    values = (SMALL.get(datatype) or [b"", b"\xff"])[: int(np.prod(dims))]
    array = array_of(datatype, values).reshape(dims)
    encoded = encode(array)
    assert not encoded.tensor_content, "clients read the field of the type"
    assert len(getattr(encoded, BY_DATATYPE[datatype].field)) == array.size
    decoded = decode("x", tf.TensorProto.FromString(encoded.SerializeToString()))
    assert (decoded.dtype, decoded.shape, decoded.tolist()) == (array.dtype, array.shape, array.tolist())


def test_one_value_stands_for_all_and_the_last_one_for_the_rest() -> None:
    assert decode("x", tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(2, 2), float_val=[7])).tolist() == [
        [7, 7],
        [7, 7],
    ]
    assert decode("x", tf.TensorProto(dtype=tf.DT_INT8, tensor_shape=shape(3), int_val=[1, 2])).tolist() == [1, 2, 2]
    assert decode("x", tf.TensorProto(dtype=tf.DT_INT64, tensor_shape=shape(2))).tolist() == [0, 0]
    assert decode("x", tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape(2))).tolist() == [b"", b""]
    repeated = tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape(2), string_val=[b"a"])
    assert decode("x", repeated).tolist() == [b"a", b"a"]
    halves = tf.TensorProto(dtype=tf.DT_HALF, tensor_shape=shape(2), half_val=[0x3C00])
    assert decode("x", halves).tolist() == [1.0, 1.0]


def test_a_few_bytes_do_not_take_all_memory() -> None:
    tensor = tf.TensorProto(dtype=tf.DT_UINT8, tensor_shape=shape(MAX_FILLED_BYTES), int_val=[1])
    assert decode("x", tensor).nbytes == MAX_FILLED_BYTES
    tensor.tensor_shape.dim.add(size=2)
    with pytest.raises(InvalidInput, match=r"expected 134,217,728 values for 'x' DT_UINT8.* at most 67,108,864"):
        decode("x", tensor)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (tf.TensorProto(), "expected one of the types DT_BOOL, .* received DT_INVALID"),
        (tf.TensorProto(dtype=tf.DT_BFLOAT16), "received DT_BFLOAT16"),
        (tf.TensorProto.FromString(b"\x08\x64"), "received type 100"),
        (
            tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf.TensorShapeProto(unknown_rank=True)),
            "received an unknown one",
        ),
        (tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(-1)), "dimensions of 0 or more"),
        (
            tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(1), float_val=[1, 2]),
            r"expected 1 values .* received 2",
        ),
        (tf.TensorProto(dtype=tf.DT_UINT8, tensor_shape=shape(1), int_val=[256]), "fit UINT8"),
        (tf.TensorProto(dtype=tf.DT_HALF, tensor_shape=shape(1), half_val=[-1]), "the 16 bits of each number"),
        (tf.TensorProto(dtype=tf.DT_INT16, tensor_shape=shape(2), tensor_content=b"abc"), "expected 4 bytes"),
        (tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape(1), tensor_content=b"\1a"), "in string_val"),
        (tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape(2**62, 2**62, 0)), "a shape that can be"),
    ],
)
def test_tensors_that_are_refused(tensor: tf.TensorProto, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode("x", tensor)


sizes = st.lists(st.one_of(st.integers(-2, 4), st.integers(-(2**63), 2**63 - 1)), max_size=4)
tensors = st.builds(
    lambda dtype, dims, content, fields: tf.TensorProto(
        dtype=dtype, tensor_shape=shape(*dims), tensor_content=content, **fields
    ),
    st.sampled_from(tf.DataType.values()),
    sizes,
    st.binary(max_size=32),
    st.fixed_dictionaries(
        {},
        optional={
            "half_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
            "float_val": st.lists(st.floats(width=32), max_size=4),
            "double_val": st.lists(st.floats(), max_size=4),
            "int_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
            "string_val": st.lists(st.binary(max_size=4), max_size=4),
            "int64_val": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
            "bool_val": st.lists(st.booleans(), max_size=4),
            "uint32_val": st.lists(st.integers(0, 2**32 - 1), max_size=4),
            "uint64_val": st.lists(st.integers(0, 2**64 - 1), max_size=4),
        },
    ),
)


@given(tensors)
def test_whatever_comes_is_read_or_refused(tensor: tf.TensorProto) -> None:
    try:
        array = decode("x", tensor)
    except InvalidInput:
        return
    assert array.shape == tuple(dim.size for dim in tensor.tensor_shape.dim)
    assert array.dtype == DTYPES[next(form.datatype for form in FORMS if form.number == tensor.dtype)]


@given(
    st.sampled_from([dtype for dtype in DTYPES.values() if not dtype.hasobject]).flatmap(
        lambda dtype: arrays(dtype, st.tuples(st.integers(0, 3), st.integers(0, 3)))
    )
)
def test_any_array_comes_back(array: Array) -> None:
    decoded = decode("x", encode(array))
    assert (decoded.dtype, decoded.shape, decoded.tobytes()) == (array.dtype, array.shape, array.tobytes())
