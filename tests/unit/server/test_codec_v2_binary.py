"""JSON in front of bytes is read once, and every request with it is as if it had been read anew."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.tensors import DTYPES, InferRequest, InferResponse
from server.transports.codecs import v2_json
from server.transports.codecs.v2 import V2Request, WantedOutput

NUMBERS = [name for name in DTYPES if name not in ("BOOL", "BYTES")]

sizes = st.lists(st.integers(0, 3), max_size=4)


def tensor(name: str, datatype: str, shape: list[Any], **parameters: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def head_of(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def told(head: bytes, raw: bytes) -> Any:
    try:
        request = v2_json.decode_request(head + raw, len(head))
    except InvalidInput as error:
        return str(error)
    infer = request.infer
    arrays = [(name, array.dtype, array.shape, array.tolist()) for name, array in infer.inputs.items()]
    assert all(array.flags.aligned for array in infer.inputs.values())
    told = (request.id, request.outputs, request.timeout_s, request.binary, request.final_mark)
    return arrays, infer.priority, infer.protocol, *told


def assert_both_ways_alike(head: bytes, raw: bytes) -> None:
    v2_json.read_binary_head.cache_clear()
    first, again = told(head, raw), told(head, raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2_json, "MAX_KEPT_BYTES", 0)
        assert told(head, raw) == first == again


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([*DTYPES, "FP8"]), sizes, st.integers(-1, 1)), max_size=3
    ),
    st.integers(-1, 1),
    st.dictionaries(
        st.sampled_from(["priority", "timeout", "binary_data_output", "triton_enable_empty_final_response"]),
        st.sampled_from([0, 7, True, False, "x"]),
        max_size=2,
    ),
    st.sampled_from([[], [{"name": "y"}], [{"name": "y", "parameters": {"binary_data": True}}], [{}]]),
    st.randoms(use_true_random=False),
)
def test_a_head_read_before_says_the_same(
    inputs: list[tuple[str, str, list[int], int]], odd: int, parameters: dict[str, Any], outputs: list[Any], random: Any
) -> None:
    tensors, raw = [], b""
    for name, datatype, shape, more in inputs:
        size = max(0, int(np.prod(shape)) * (DTYPES[datatype].itemsize if datatype in DTYPES else 1) + more * odd)
        tensors.append(tensor(name, datatype, shape, binary_data_size=size))
        raw += random.randbytes(size)
    assert_both_ways_alike(head_of(*tensors, parameters=parameters, outputs=outputs), raw)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_a_head_of_numbers_is_kept(datatype: str) -> None:
    values = np.arange(6).astype(DTYPES[datatype]).reshape(2, 3)
    head = head_of(tensor("x", datatype, [2, 3], binary_data_size=values.nbytes), id="7")
    known = v2_json.read_binary_head(head)
    assert known is not None
    assert known.n_bytes == values.nbytes
    for padding in (b"", b" "):  # so that the bytes begin at an even place and at an odd one
        text = head + padding
        request = v2_json.decode_request(text + values.tobytes(), len(text))
        assert np.array_equal(request.infer.inputs["x"], values)
        assert request.infer.inputs["x"].flags.aligned


def test_tensors_lie_behind_each_other_and_nothing_said_is_lost() -> None:
    head = head_of(
        tensor("x", "UINT8", [2], binary_data_size=2),
        tensor("y", "INT16", [1], binary_data_size=2),
        id="7",
        parameters={
            "priority": 3,
            "timeout": 5,
            "binary_data_output": True,
            "triton_enable_empty_final_response": True,
        },
        outputs=[{"name": "z", "parameters": {"classification": 2}}],
    )
    assert v2_json.read_binary_head(head) is not None
    arrays, *rest = told(head, b"\x01\x02\x03\x00")
    assert [array[3] for array in arrays] == [[1, 2], [3]]
    assert rest == [3 - 100, "v2_http", "7", (WantedOutput("z", 2),), 5e-6, True, True]
    assert_both_ways_alike(head, b"\x01\x02\x03\x00")


@pytest.mark.parametrize(
    "head",
    [
        b"{",
        b"[]",
        head_of({"name": "x", "datatype": "UINT8", "shape": [2], "data": [1, 2]}),
        head_of(tensor("x", "UINT8", [2], binary_data_size=3)),
        head_of(tensor("x", "UINT8", [0], binary_data_size=0)),
        head_of(tensor("x", "UINT8", [-1, -2], binary_data_size=2)),
        head_of(tensor("x", "UINT8", [1] * 33, binary_data_size=1)),
        head_of(tensor("x", "BOOL", [2], binary_data_size=2)),
        head_of(tensor("x", "BYTES", [1], binary_data_size=5)),
        head_of(tensor("x", "UINT8", [2], binary_data_size=2, shared_memory_region="r")),
        head_of(tensor("x", "UINT8", [2], binary_data_size=2), tensor("x", "UINT8", [2], binary_data_size=2)),
        head_of(tensor("x", "UINT8", [2], binary_data_size=2), parameters={"priority": "high"}),
    ],
)
def test_what_is_out_of_the_ordinary_is_read_each_time(head: bytes) -> None:
    assert v2_json.read_binary_head(head) is None


def test_requests_with_one_head_share_nothing_that_changes() -> None:
    head = head_of(tensor("x", "UINT8", [1], binary_data_size=1))
    first, second = (v2_json.decode_request(head + raw, len(head)) for raw in (b"\x01", b"\x02"))
    first.infer.model, first.timeout_s = "m", 1.0
    assert (second.infer.model, second.timeout_s) == ("", None)
    assert [request.infer.inputs["x"].tolist() for request in (first, second)] == [[1], [2]]


@given(
    st.dictionaries(
        st.sampled_from(["y", "classes", "z"]), st.tuples(st.sampled_from([*DTYPES]), sizes), min_size=1, max_size=3
    ),
    st.integers(1, 9),
)
def test_an_answer_in_bytes_is_as_if_its_json_were_spelled_anew(
    outputs: dict[str, tuple[str, list[int]]], version: int
) -> None:
    arrays = {name: np.zeros(shape, DTYPES[datatype]) for name, (datatype, shape) in outputs.items()}
    for array in arrays.values():
        array[...] = b"x" if array.dtype.hasobject else 1
    response = InferResponse("m", version, "int8", arrays)
    by_name = tuple(WantedOutput(name) for name in arrays)
    expected = v2_json.encode_response(response, V2Request(InferRequest(), outputs=by_name, binary=True))
    assert v2_json.encode_response(response, V2Request(InferRequest(), binary=True)) == expected
    named = v2_json.encode_response(response, V2Request(InferRequest(), id="7", binary=True))
    assert named.header_length is not None
    assert json.loads(named.content[: named.header_length])["id"] == "7"
