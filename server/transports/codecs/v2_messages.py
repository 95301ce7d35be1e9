"""The Open Inference Protocol over gRPC: `inference` messages to requests and back.

Values come in either as raw bytes for all inputs, or as typed contents. They always go out as raw bytes, in the order
of the outputs: that is all that common clients read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from protos import inference_pb2 as pb
from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse
from server.transports.codecs.v2 import (
    V2Request,
    read_output,
    read_parameters,
    read_version,
    refuse_shared_memory,
    select,
)
from server.transports.codecs.v2_tensors import decode_raw, decode_values, encode_raw

# Where the typed contents of each datatype are.
CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP16": "fp32_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def decode_request(message: pb.ModelInferRequest) -> V2Request:
    """Reads a request.

    Args:
        message: The request as it came.

    Raises:
        InvalidInput: Its tensors, version or parameters are not of the protocol's form.
    """
    infer = InferRequest(model=message.model_name, version=read_version(message.model_version), protocol="v2_grpc")
    request = V2Request(infer, message.id)
    if message.parameters:
        read_parameters(request, read_choices(message.parameters))
    infer.inputs = _decode_inputs(message)
    if message.outputs:
        request.outputs = tuple(read_output(output.name, read_choices(output.parameters)) for output in message.outputs)
    return request


def encode_response(response: InferResponse, request: V2Request) -> pb.ModelInferResponse:
    """Writes the answer.

    Args:
        response: What the service answered.
        request: What was asked.

    Raises:
        InvalidInput: Classes were asked for of an output that has none.
    """
    outputs = select(response, request)
    answer = pb.ModelInferResponse(
        model_name=response.model,
        model_version=str(response.version),
        id=request.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=output.name, datatype=output.datatype, shape=output.array.shape
            )
            for output in outputs
        ],
        raw_output_contents=[encode_raw(output.array) for output in outputs],
    )
    if request.final_mark:
        answer.parameters["triton_final_response"].bool_param = True
    return answer


def read_choices(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a map of parameters.

    Args:
        parameters: Messages that each hold one value of several kinds, or none.
    """
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in parameters.items())
    return {name: getattr(value, kind) for name, value, kind in chosen if kind is not None}


def _decode_inputs(message: pb.ModelInferRequest) -> dict[str, Array]:
    for tensor in message.inputs:  # these have no raw contents, so they would be miscounted below
        if tensor.parameters:
            refuse_shared_memory(tensor.name, tensor.parameters)
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(
            f"expected `raw_input_contents` for all {len(message.inputs)} inputs or for none, received {len(raw)}"
        )
    inputs: dict[str, Array] = {}
    for position, tensor in enumerate(message.inputs):
        if tensor.name in inputs:
            raise InvalidInput(f"expected each input once, received '{tensor.name}' twice")
        inputs[tensor.name] = (
            decode_raw(tensor.name, tensor.datatype, tensor.shape, raw[position]) if raw else _decode_contents(tensor)
        )
    return inputs


def _decode_contents(tensor: pb.ModelInferRequest.InferInputTensor) -> Array:
    field = CONTENTS.get(tensor.datatype)
    values: Sequence[Any] | Array = getattr(tensor.contents, field) if field is not None else ()
    if field in ("fp32_contents", "fp64_contents"):  # a list would pass through Python's double, at ten times the cost
        values = np.fromiter(values, np.float32 if field == "fp32_contents" else np.float64)
    else:
        values = list(values)
    return decode_values(tensor.name, tensor.datatype, tensor.shape, values)
