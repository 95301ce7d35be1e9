from typing import Any

import numpy as np
import pytest

from protos import inference_pb2 as pb
from server.errors import InvalidInput
from server.tensors import DTYPES, InferRequest, InferResponse
from server.transports.codecs.v2 import V2Request, WantedOutput
from server.transports.codecs.v2_messages import CONTENTS, decode_request, encode_response, read_choices

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    **{name: [0, 100] for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    **{name: [-100, 100] for name in ("INT8", "INT16", "INT32", "INT64")},
    **{name: [0.5, -2.0] for name in ("FP16", "FP32", "FP64")},
    "BYTES": [b"a", b"\xff"],
}


def tensor(name: str, datatype: str, shape: list[int], **more: Any) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, **more)


def typed(datatype: str, values: list[Any]) -> pb.InferTensorContents:
    contents = pb.InferTensorContents()
    getattr(contents, CONTENTS[datatype]).extend(values)
    return contents


@pytest.mark.parametrize("datatype", DTYPES)
def test_typed_contents_of_every_datatype(datatype: str) -> None:
    values = VALUES[datatype]
    message = pb.ModelInferRequest(inputs=[tensor("x", datatype, [2, 1], contents=typed(datatype, values))])
    array = decode_request(message).infer.inputs["x"]
    assert array.dtype == DTYPES[datatype]
    assert array.tolist() == [[values[0]], [values[1]]]


def test_raw_contents_belong_to_inputs_by_their_order() -> None:
    message = pb.ModelInferRequest(
        inputs=[tensor("x", "UINT8", [2]), tensor("y", "BYTES", [1])], raw_input_contents=[b"\1\2", b"\1\0\0\0z"]
    )
    inputs = decode_request(message).infer.inputs
    assert list(inputs) == ["x", "y"]
    assert inputs["x"].tolist() == [1, 2]
    assert inputs["y"].tolist() == [b"z"]


def test_the_rest_of_a_request() -> None:
    message = pb.ModelInferRequest(model_name="pets", model_version="3", id="q")
    message.parameters["priority"].uint64_param = 1
    message.parameters["timeout"].int64_param = 1_000
    message.parameters["nothing"].SetInParent()
    message.outputs.add(name="p").parameters["classification"].int64_param = 2
    request = decode_request(message)
    assert (request.infer.model, request.infer.version, request.id) == ("pets", 3, "q")
    assert (request.infer.priority, request.timeout_s, request.infer.protocol) == (-99, 0.001, "v2_grpc")
    assert request.outputs == (WantedOutput("p", 2),)


def shared() -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(inputs=[tensor("x", "UINT8", [1])])
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.ModelInferRequest(inputs=[tensor("x", "UINT8", [1])], raw_input_contents=[b"1", b"2"]), "for all 1 inputs"),
        (pb.ModelInferRequest(inputs=[tensor("x", "UINT8", [1])] * 2, raw_input_contents=[b"1", b"2"]), "twice"),
        (pb.ModelInferRequest(inputs=[tensor("x", "UINT8", [1])]), "expected 1 values"),
        (pb.ModelInferRequest(inputs=[tensor("x", "FP32", [1], contents=typed("INT32", [1]))]), "expected 1 values"),
        (pb.ModelInferRequest(inputs=[tensor("x", "UINT8", [1], contents=typed("UINT8", [256]))]), "fit UINT8"),
        (pb.ModelInferRequest(inputs=[tensor("x", "FP16", [1], contents=typed("FP16", [1e6]))]), "fit FP16"),
        (pb.ModelInferRequest(inputs=[tensor("x", "BF16", [1])]), "one of the datatypes"),
        (pb.ModelInferRequest(model_version="latest"), "version"),
        (shared(), "shares no memory"),
    ],
)
def test_requests_that_are_refused(message: pb.ModelInferRequest, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode_request(message)


def test_an_answer_is_raw_and_in_the_order_asked_for() -> None:
    outputs = {"a": np.array([[1, 2]], np.int32), "b": np.array([0.5], np.float32)}
    request = V2Request(InferRequest(), "q", (WantedOutput("b"), WantedOutput("a")))
    answer = encode_response(InferResponse("pets", 7, "int8", outputs), request)
    assert (answer.model_name, answer.model_version, answer.id) == ("pets", "7", "q")
    assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("b", "FP32", [1]),
        ("a", "INT32", [1, 2]),
    ]
    assert [*answer.raw_output_contents] == [np.float32(0.5).tobytes(), np.array([1, 2], np.int32).tobytes()]
    assert not any(output.HasField("contents") for output in answer.outputs)
    assert not answer.parameters


def test_an_answer_says_that_it_is_the_last_one_where_asked() -> None:
    request = V2Request(InferRequest(), final_mark=True)
    assert encode_response(InferResponse("m", 1, "v", {}), request).parameters["triton_final_response"].bool_param


def test_parameters_are_plain_values() -> None:
    message = pb.ModelInferRequest()
    message.parameters["a"].bool_param = False
    message.parameters["b"].string_param = "x"
    message.parameters["c"].double_param = 0.5
    message.parameters["d"].SetInParent()
    assert read_choices(message.parameters) == {"a": False, "b": "x", "c": 0.5}
