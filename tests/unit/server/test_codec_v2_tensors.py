from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server.errors import InvalidInput
from server.tensors import DTYPES
from server.transports.codecs.v2_tensors import datatype_of, decode_raw, decode_values, encode_raw, split_bytes

NUMBERS = sorted(name for name in DTYPES if name != "BYTES")


@given(
    st.sampled_from(NUMBERS).flatmap(lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(min_dims=0, min_side=0)))
)
def test_numbers_survive_the_way_there_and_back(array: np.ndarray[Any, Any]) -> None:
    datatype = datatype_of(array)
    back = decode_raw("x", datatype, array.shape, encode_raw(array))
    assert back.dtype is DTYPES[datatype]  # the batcher's quick look compares by identity
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_survive_the_way_there_and_back(elements: list[bytes]) -> None:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    back = decode_raw("x", "BYTES", [len(elements), 1], encode_raw(array))
    assert back.shape == (len(elements), 1)
    assert back.ravel().tolist() == elements


def test_the_wire_is_little_endian_and_bytes_follow_their_length() -> None:
    assert encode_raw(np.array([1, 2], np.int16)) == b"\x01\x00\x02\x00"
    array = np.empty(2, np.object_)
    array[:] = [b"ab", b""]
    assert encode_raw(array) == b"\x02\0\0\0ab\0\0\0\0"


def test_any_byte_but_0_is_true() -> None:
    array = decode_raw("x", "BOOL", [3], b"\x00\x01\x02")
    assert array.tolist() == [False, True, True]
    assert array.view(np.uint8).tolist() == [0, 1, 1], "what the model reads is 0 or 1"


def test_a_tensor_at_an_odd_address_is_moved() -> None:
    data = memoryview(b"_" + np.arange(4, dtype=np.float32).tobytes())[1:]
    array = decode_raw("x", "FP32", [4], data)
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], b"1234", "expected 8 bytes"),
        ("FP32", [1], b"12345", "expected 4 bytes"),
        ("FP32", [-1], b"1234", "dimensions of 0 or more"),
        ("FP32", [-1, -1], b"1234", "dimensions of 0 or more"),
        ("BF16", [2], b"1234", "one of the datatypes"),
        ("fp32", [1], b"1234", "one of the datatypes"),
        ("UINT8", [0] + [2**40] * 4, b"", "a shape that can be"),
        ("UINT8", [1] * 80, b"1", "a shape that can be"),
        ("BYTES", [1], b"", "expected 1 elements"),
        ("BYTES", [2**50], b"\0\0\0\0", "expected 1,125"),
        ("BYTES", [1], b"\x05\0\0\0abc", "expected 1 elements"),
        ("BYTES", [1], b"\x01\0\0\0ab", "expected 1 elements"),
        ("BYTES", [2], b"\xff\xff\xff\xff\0\0\0\0", "expected 2 elements"),
    ],
)
def test_bytes_that_do_not_fill_the_shape(datatype: str, shape: list[int], data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_raw("x", datatype, shape, data)


def test_splitting_stops_at_a_length_beyond_the_end() -> None:
    with pytest.raises(InvalidInput, match="1 elements"):
        split_bytes("x", b"\x64\0\0\0\0\0\0\0", 2)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]),
        ("INT8", [-128, 127]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP16", [0.5, -2.0]),
        ("FP32", [0.5, 1e30]),
        ("FP64", [0.1, 1e300]),
        ("BYTES", [b"a", b""]),
    ],
)
def test_values(datatype: str, values: list[Any]) -> None:
    array = decode_values("x", datatype, [1, 2], values)
    assert array.dtype == DTYPES[datatype]
    assert array.tolist() == [values] or datatype == "FP32"
    assert array.shape == (1, 2)


@pytest.mark.parametrize(
    ("datatype", "values", "message"),
    [
        ("UINT8", [256], "fit UINT8"),
        ("UINT8", [-1], "fit UINT8"),
        ("INT8", [128], "fit INT8"),
        ("INT64", [2**63], "fit INT64"),
        ("FP16", [1e6], "fit FP16"),
        ("FP32", [1e300], "fit FP32"),
        ("FP32", [1.0, 2.0], "expected 1 values"),
        ("BYTES", [], "expected 1 values"),
        ("COMPLEX", [1], "one of the datatypes"),
    ],
)
def test_values_that_the_type_cannot_hold(datatype: str, values: list[Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_values("x", datatype, [1], values)
