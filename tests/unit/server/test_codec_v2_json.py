import json
from typing import Any

import numpy as np
import pytest

from server.errors import InvalidInput
from server.tensors import DTYPES, Array, InferRequest, InferResponse
from server.transports.codecs.v2 import V2Request, WantedOutput
from server.transports.codecs.v2_json import decode_request, encode_response, read_object

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    **{name: [0, 100] for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    **{name: [-100, 100] for name in ("INT8", "INT16", "INT32", "INT64")},
    **{name: [0.5, -2] for name in ("FP16", "FP32", "FP64")},
    "BYTES": ["a", "é"],
}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def tensor(datatype: str, shape: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, **more}


def read(datatype: str, shape: list[int], data: Any, **more: Any) -> Array:
    return decode_request(body(tensor(datatype, shape, data=data, **more)), None).infer.inputs["x"]


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_there_and_back(datatype: str) -> None:
    values = VALUES[datatype]
    array = read(datatype, [2, 1], values)
    assert array.dtype == DTYPES[datatype]
    response = InferResponse("m", 1, "v", {"y": array})
    content, header_length = encode_response(response, V2Request(InferRequest()))
    assert header_length is None
    assert json.loads(content)["outputs"] == [{"name": "y", "datatype": datatype, "shape": [2, 1], "data": values}]


def test_nested_and_flat_data_are_the_same() -> None:
    flat = read("INT32", [2, 1, 2], [1, 2, 3, 4])
    assert np.array_equal(read("INT32", [2, 1, 2], [[[1, 2]], [[3, 4]]]), flat)
    assert read("INT32", [], [7]).shape == ()
    assert read("INT32", [0, 2], []).shape == (0, 2)


def test_tensors_behind_the_json() -> None:
    first = tensor("FP32", [2], parameters={"binary_data_size": 8})
    second = tensor("BYTES", [1], parameters={"binary_data_size": 5}) | {"name": "y"}
    third = tensor("INT8", [1], data=[5]) | {"name": "z"}
    head = body(first, third, second)
    behind = np.array([1, 2], np.float32).tobytes() + b"\1\0\0\0q"
    inputs = decode_request(head + behind, len(head)).infer.inputs
    assert {name: array.tolist() for name, array in inputs.items()} == {"x": [1, 2], "z": [5], "y": [b"q"]}


def test_the_rest_of_a_request() -> None:
    request = decode_request(
        body(
            id="q",
            parameters={"priority": 1, "timeout": 1000, "binary_data_output": True},
            outputs=[{"name": "p", "parameters": {"classification": 2, "binary_data": False}}, {"name": "r"}],
        ),
        None,
    )
    assert (request.id, request.infer.priority, request.timeout_s, request.binary) == ("q", -99, 0.001, True)
    assert request.outputs == (WantedOutput("p", 2, binary=False), WantedOutput("r"))
    assert request.infer.protocol == "v2_http"


def test_a_header_length_of_0_is_a_picture_alone() -> None:
    assert decode_request(b"\xff\xd8", 0).infer.images == (b"\xff\xd8",)


def test_pictures_as_base64() -> None:
    assert read("BYTES", [1], ["/9g="], parameters={"content_type": "base64"}).tolist() == [b"\xff\xd8"]
    with pytest.raises(InvalidInput, match="base64"):
        read("BYTES", [1], ["/9g"], parameters={"content_type": "base64"})


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("INT8", [1], [1.5], "expected INT8 values"),
        ("INT8", [1], [True], "expected INT8 values"),
        ("INT8", [1], ["1"], "expected INT8 values"),
        ("INT8", [1], [None], "expected INT8 values"),
        ("BOOL", [1], [1], "expected BOOL values"),
        ("BYTES", [1], [1], "expected BYTES values"),
        ("FP32", [1], [1e300], "fit FP32"),
        ("UINT8", [1], [256], "fit UINT8"),
        ("UINT8", [2], [1], "expected 2 values"),
        ("UINT8", [2, 2], [[1, 2], [3]], "nested to the shape"),
        ("UINT8", [2, 2], [[1, 2], 3], "nested to the shape"),
        ("UINT8", [2, 2], [[1, 2, 3, 4]], "nested to the shape"),
        ("UINT8", [2], [[1], [2]], "nested to the shape"),
        ("UINT8", [2, 1, 1], [[1], [2]], "nested to the shape"),
        ("UINT8", [1], 1, "expected 'data' as a list"),
        ("UINT8", [1], {}, "expected 'data' as a list"),
        ("UINT8", [1.0], [1], "whole numbers"),
        ("UINT8", [True], [1], "whole numbers"),
        ("UINT8", [-1], [1], "dimensions of 0 or more"),
        ("BF16", [1], [1], "one of the datatypes"),
    ],
)
def test_data_that_is_refused(datatype: str, shape: list[Any], data: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(datatype, shape, data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected JSON"),
        (b"{", "Inference-Header-Content-Length"),
        (b"[]", "a JSON object"),
        (b'{"inputs": {}}', "'inputs' as a list"),
        (b'{"inputs": [1]}', "list of objects"),
        (b'{"inputs": [{}]}', "'name' as text, received nothing"),
        (b'{"inputs": [{"name": "x"}]}', "'datatype' as text"),
        (b'{"inputs": [{"name": "x", "datatype": "UINT8"}]}', "'shape' as a list"),
        (b'{"id": 3}', "'id' as text, received 3"),
        (b'{"outputs": [{"name": null}]}', "'name' as text"),
        (body(tensor("UINT8", [1], parameters={"binary_data_size": 1})), "behind the JSON"),
        (body(tensor("UINT8", [1], parameters={"binary_data_size": -1})), "behind the JSON"),
        (body(tensor("UINT8", [1], parameters={"binary_data_size": "1"})), "whole number"),
        (body(tensor("UINT8", [1], parameters={"shared_memory_region": "r"})), "shares no memory"),
        (body(tensor("UINT8", [1], data=[1]), tensor("UINT8", [1], data=[1])), "twice"),
        (b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}', "expected"),
    ],
)
def test_bodies_that_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_request(content, None)


def test_lengths_that_do_not_add_up() -> None:
    head = body(tensor("UINT8", [1], parameters={"binary_data_size": 1}))
    with pytest.raises(InvalidInput, match="received 2"):
        decode_request(head + b"12", len(head))
    with pytest.raises(InvalidInput, match="bytes of JSON by the header"):
        decode_request(head, len(head) + 1)


def test_an_answer_with_tensors_behind_it() -> None:
    text = np.empty(1, np.object_)
    text[:] = [b"\xff"]
    outputs: dict[str, Array] = {"a": np.array([1, 2], np.int16), "b": np.array([0.1], np.float32), "c": text}
    wanted = (WantedOutput("a", binary=True), WantedOutput("b"), WantedOutput("c", binary=True))
    content, header_length = encode_response(
        InferResponse("m", 7, "v", outputs), V2Request(InferRequest(), "q", wanted)
    )
    assert json.loads(content[:header_length]) == {
        "model_name": "m",
        "model_version": "7",
        "id": "q",
        "outputs": [
            {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
            {"name": "b", "datatype": "FP32", "shape": [1], "data": [0.1]},
            {"name": "c", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
        ],
    }
    assert content[header_length:] == b"\1\0\2\0\1\0\0\0\xff"
    with pytest.raises(InvalidInput, match="no UTF-8 text"):
        encode_response(InferResponse("m", 7, "v", outputs), V2Request(InferRequest()))


def test_a_body_that_may_be_empty() -> None:
    assert read_object(b"") == {}
    assert read_object(b' {"a": 1}') == {"a": 1}
    with pytest.raises(InvalidInput):
        read_object(b"3")
