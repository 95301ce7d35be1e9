"""The Open Inference Protocol over HTTP: JSON, with tensors in it or as bytes behind it, to requests and back.

{"inputs": [{"name", "shape", "datatype", "data": […]}]}                               all in the JSON
{"inputs": [{…, "parameters": {"binary_data_size": 64}}]} + 64 bytes                   header: the JSON's length
a picture's own bytes                                                                  header: 0
"""

import base64
import binascii
import contextlib
import math
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse
from server.transports.codecs import json_boxes
from server.transports.codecs.v2 import (
    NamedOutput,
    V2Request,
    read_output,
    read_parameters,
    refuse_shared_memory,
    select,
)
from server.transports.codecs.v2_binary import BinaryHead, RawTensor
from server.transports.codecs.v2_tensors import NAMES, decode_raw, decode_values, encode_raw, holds_bytes

# Heads that are remembered, of how many bytes at most.
MAX_KEPT: Final = 256
MAX_KEPT_BYTES: Final = 1024
_DATA: Final = json_boxes.pattern_of("data")
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})


class V2Body(NamedTuple):
    """An answer's body.

    Args:
        content: The JSON, and behind it the bytes of tensors.
        header_length: Length of the JSON, or None where there is nothing behind it.
    """

    content: bytes
    header_length: int | None


def decode_request(body: bytes, header_length: int | None) -> V2Request:
    """Reads the body of an infer request; model and version are in its address.

    Args:
        body: The whole body.
        header_length: Length of the JSON at its beginning; None where it is all JSON, 0 where there is none but only
            the model's one input.

    Raises:
        InvalidInput: The body is not of the protocol's form.
    """
    if header_length == 0:
        return V2Request(InferRequest(images=(body,), protocol="v2_http"))
    if header_length is not None and header_length > len(body):
        raise InvalidInput(f"expected {header_length:,} bytes of JSON by the header, received {len(body):,} in all")
    text = body if header_length is None else body[:header_length]
    if header_length is not None and header_length <= MAX_KEPT_BYTES:
        known = read_binary_head(text)
        if known is not None and len(body) - header_length == known.n_bytes:
            return known.request_of(body, header_length)
    behind = memoryview(body)[len(text) :]
    boxed = json_boxes.loads(text, _DATA, _tensors)
    if boxed is not None:
        with contextlib.suppress(InvalidInput):  # its message is to be about the body as it came
            return _read_document(boxed, behind)
    return _read_document(_parse(text), behind)


def _read_document(document: dict[str, Any], behind: memoryview | None) -> V2Request:
    """A request, or all of it but the inputs where their bytes are not there."""
    request = V2Request(InferRequest(protocol="v2_http"), id=_typed(document, "id", str, ""))
    read_parameters(request, _typed(document, "parameters", dict, {}))
    if behind is not None:
        request.infer.inputs = _decode_inputs(_objects(document, "inputs"), behind)
    request.outputs = tuple(
        read_output(_typed(output, "name", str), _typed(output, "parameters", dict, {}))
        for output in _objects(document, "outputs")
    )
    return request


def encode_response(response: InferResponse, request: V2Request) -> V2Body:
    """Writes the answer.

    Args:
        response: What the service answered.
        request: What was asked.

    Raises:
        InvalidInput: Classes were asked for of an output that has none, or bytes as JSON that are no text.
    """
    if request.all_binary:
        known = _encode_binary(response)
        if known is not None:
            return known
    behind: list[bytes] = []
    document: dict[str, Any] = {"model_name": response.model, "model_version": str(response.version)}
    if request.id:
        document["id"] = request.id
    document["outputs"] = [_encode_output(output, behind) for output in select(response, request)]
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return V2Body(b"".join((head, *behind)), len(head)) if behind else V2Body(head, None)


def _encode_binary(response: InferResponse) -> V2Body | None:
    """Every output as bytes, or None where one of them is no array of numbers."""
    outputs = response.outputs
    told = tuple([(name, array.dtype, array.shape) for name, array in outputs.items()])
    head = _spell_binary_head(response.model, response.version, told)
    return None if head is None else V2Body(b"".join([head, *map(encode_raw, outputs.values())]), len(head))


@lru_cache(MAX_KEPT)
def _spell_binary_head(
    model: str, version: int, told: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]
) -> bytes | None:
    """The JSON in front of bytes; answers of one model to as many rows have the same."""
    if any(dtype.hasobject for _, dtype, _ in told):
        return None
    outputs = [
        {
            "name": name,
            "datatype": NAMES[dtype],
            "shape": shape,
            "parameters": {"binary_data_size": math.prod(shape) * dtype.itemsize},
        }
        for name, dtype, shape in told
    ]
    return orjson.dumps({"model_name": model, "model_version": str(version), "outputs": outputs})


@lru_cache(MAX_KEPT)
def read_binary_head(text: bytes) -> BinaryHead | None:
    """Reads JSON that has nothing but bytes behind it, once: clients send the same one again and again.

    Args:
        text: The JSON.

    Returns:
        What it says, or None where it is not in order or some of its tensors do not lie behind it.
    """
    try:
        document = _parse(text)
        request = _read_document(document, None)
        tensors = [_raw_tensor(tensor) for tensor in _objects(document, "inputs")]
    except InvalidInput:
        return None
    known = tuple(tensor for tensor in tensors if tensor is not None)
    return BinaryHead(request, known) if len({tensor.name for tensor in known}) == len(tensors) else None


def _raw_tensor(tensor: dict[str, Any]) -> RawTensor | None:
    name, parameters = _typed(tensor, "name", str), _typed(tensor, "parameters", dict, {})
    refuse_shared_memory(name, parameters)
    if "binary_data_size" not in parameters:
        return None
    shape = _shape(name, _typed(tensor, "shape", list))
    return RawTensor.of(name, _typed(tensor, "datatype", str), shape, _typed(parameters, "binary_data_size", int))


def read_object(body: bytes) -> dict[str, Any]:
    """Reads a body that is one JSON object, or nothing.

    Args:
        body: The whole body.

    Raises:
        InvalidInput: It is something else.
    """
    return _parse(body) if body else {}


def _encode_output(output: NamedOutput, behind: list[bytes]) -> dict[str, Any]:
    array = output.array
    document: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": array.shape}
    if output.binary:
        raw = encode_raw(array)
        behind.append(raw)
        return document | {"parameters": {"binary_data_size": len(raw)}}
    if output.datatype == "BYTES":
        return document | {"data": [_to_text(output.name, element) for element in array.ravel()]}
    return document | {"data": np.ascontiguousarray(array).reshape(-1)}


def _to_text(name: str, element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"the values of '{name}' are no UTF-8 text; ask for them with binary_data") from None


def _decode_inputs(tensors: list[dict[str, Any]], behind: memoryview) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    position = 0
    for tensor in tensors:
        name = _typed(tensor, "name", str)
        if name in inputs:
            raise InvalidInput(f"expected each input once, received '{name}' twice")
        parameters = _typed(tensor, "parameters", dict, {})
        refuse_shared_memory(name, parameters)
        datatype, shape = _typed(tensor, "datatype", str), _shape(name, _typed(tensor, "shape", list))
        if "binary_data_size" not in parameters:
            inputs[name] = _decode_data(name, datatype, shape, tensor)
            continue
        size = _typed(parameters, "binary_data_size", int)
        if not 0 <= size <= len(behind) - position:
            raise InvalidInput(
                f"expected {size:,} bytes for '{name}' behind the JSON, {len(behind) - position:,} are left;"
                " Inference-Header-Content-Length tells where the JSON ends"
            )
        inputs[name] = decode_raw(name, datatype, shape, behind[position : position + size])
        position += size
    if position != len(behind):
        raise InvalidInput(f"expected {position:,} bytes of tensors behind the JSON, received {len(behind):,}")
    return inputs


def _decode_data(name: str, datatype: str, shape: tuple[int, ...], tensor: dict[str, Any]) -> Array:
    data = tensor.get("data")
    if isinstance(data, np.ndarray):
        return _decode_box(name, datatype, shape, data)
    values = _flatten(name, shape, _typed(tensor, "data", list))
    kinds = {*map(type, values)}
    if datatype == "BYTES":
        allowed: set[type] = {str}
    elif datatype == "BOOL":
        allowed = {bool}
    else:
        allowed = {int, float} if datatype in _FLOATS else {int}
    if not kinds <= allowed:
        stranger = next(value for value in values if type(value) not in allowed)
        raise InvalidInput(f"expected {datatype} values in the data of '{name}', received {stranger!r:.40}")
    if datatype == "BYTES":
        as_base64 = tensor.get("parameters", {}).get("content_type") == "base64"
        values = [_decode_base64(name, value) if as_base64 else value.encode() for value in values]
    return decode_values(name, datatype, shape, values)


def _decode_box(name: str, datatype: str, shape: tuple[int, ...], box: Array) -> Array:
    if box.shape not in (shape, (box.size,)) or not holds_bytes(datatype):
        raise InvalidInput(_ragged(name, shape))
    return decode_values(name, datatype, shape, box.ravel())


def _tensors(document: dict[str, Any]) -> list[Any]:
    inputs = document.get("inputs")
    return inputs if isinstance(inputs, list) else []


def _flatten(name: str, shape: tuple[int, ...], data: list[Any]) -> list[Any]:
    """The values of nested lists of the tensor's own shape, or of a flat one."""
    level, depth = data, 1
    while level and isinstance(level[0], list):
        if depth >= len(shape) or len(level) != int(np.prod(shape[:depth], dtype=object)):
            raise InvalidInput(_ragged(name, shape))
        size = shape[depth]
        if not all(isinstance(element, list) and len(element) == size for element in level):
            raise InvalidInput(_ragged(name, shape))
        level = [*chain.from_iterable(level)]
        depth += 1
    if depth not in (1, len(shape)):
        raise InvalidInput(_ragged(name, shape))
    return level


def _ragged(name: str, shape: tuple[int, ...]) -> str:
    return f"expected the data of '{name}' as one flat list, or as lists nested to the shape {list(shape)}"


def _decode_base64(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"expected base64 in the data of '{name}': {error}") from None


def _shape(name: str, shape: list[Any]) -> tuple[int, ...]:
    if not all(type(size) is int for size in shape):
        raise InvalidInput(f"expected the shape of '{name}' as whole numbers, received {str(shape)[:80]}")
    return tuple(shape)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"expected JSON, received a body that is none: {error}; where bytes follow it,"
            " Inference-Header-Content-Length has to tell its length"
        ) from None
    if not isinstance(document, dict):
        raise InvalidInput(f"expected a JSON object, received {str(document)[:40]!r}")
    return document


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    objects: list[Any] = _typed(document, key, list, [])
    if not all(isinstance(element, dict) for element in objects):
        raise InvalidInput(f"expected '{key}' as a list of objects, received {str(objects)[:80]}")
    return objects


def _typed(document: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = document.get(key, default)
    if type(value) is not kind:
        names = {str: "text", dict: "an object", list: "a list", int: "a whole number"}
        received = "nothing" if value is None else f"{value!r:.40}"
        raise InvalidInput(f"expected '{key}' as {names[kind]}, received {received}")
    return value
