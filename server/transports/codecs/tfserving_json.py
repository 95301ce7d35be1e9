"""TensorFlow Serving over HTTP: JSON to requests and back. What KServe calls its V1 protocol is the row form.

{"instances": [value, …]}  or  [{"x": value, …}, …]      rows       ─▶  {"predictions": [value, …]}
{"inputs": value}          or  {"x": value, …}           columns    ─▶  {"outputs": value}  or  {"y": value, …}
{"examples": [{feature: value, …}, …], "context": {…}}   classify   ─▶  {"results": [[[label, score], …], …]}

A value is a number, a text, {"b64": "…"} for bytes, or lists of these of one shape.
"""

import base64
import binascii
import contextlib
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse, TensorSpec
from server.transports.codecs import json_boxes
from server.transports.codecs.tfserving import (
    IMAGE_BYTES,
    TfRequest,
    choose_signature,
    classify_signatures,
    find_input,
    image_input,
    predict_signatures,
    read_scores,
)
from server.transports.codecs.tfserving_examples import decode_examples
from server.transports.codecs.v2_tensors import decode_values, holds_bytes

_VALUES: Final = json_boxes.pattern_of("instances", "inputs")
B64: Final = "b64"
BYTES_SUFFIX: Final = "_bytes"  # outputs of bytes whose name ends so are told as base64, as TensorFlow Serving does
MAX_NESTING: Final = 32  # as many dimensions as NumPy had for decades; its own end is 64
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})


def decode_predict(body: bytes, model: ModelDescription) -> TfRequest:
    """Reads the body of `:predict`.

    Args:
        body: The whole body.
        model: The version that will answer.

    Raises:
        InvalidInput: It is not of the protocol's form, or not what the model takes.
    """
    boxed = json_boxes.loads(body, _VALUES, lambda document: (document,))
    if boxed is not None:
        with contextlib.suppress(InvalidInput):  # its message is to be about the body as it came
            return _read_predict(boxed, model)
    return _read_predict(_parse(body), model)


def _read_predict(document: dict[str, Any], model: ModelDescription) -> TfRequest:
    signature = choose_signature(_text(document, "signature_name"), predict_signatures(model))
    if ("instances" in document) == ("inputs" in document):
        raise InvalidInput('expected either "instances" (rows) or "inputs" (columns), received both or neither')
    rows = "instances" in document
    columns = _columns_of_rows(document["instances"], model) if rows else _columns(document["inputs"], model)
    inputs: dict[str, Array] = {}
    for name, value in columns.items():
        spec = find_input(name, model)
        if spec.name in inputs:
            raise InvalidInput(f"expected each input once, received {', '.join(columns)}, which are the same")
        inputs[spec.name] = _to_array(name, spec, value, takes_pictures=spec is image_input(model))
    return TfRequest(InferRequest(inputs=inputs), signature, rows)


def encode_predict(response: InferResponse, request: TfRequest) -> bytes:
    """Writes the answer of `:predict`.

    Args:
        response: What the service answered.
        request: What was asked.

    Raises:
        InvalidInput: The request came by rows, and the outputs have none.
    """
    outputs = response.outputs
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    if not request.rows:
        return _dump({"outputs": next(iter(values.values())) if len(values) == 1 else values})
    counts = {array.shape[:1] for array in outputs.values()}
    if len(counts) != 1 or () in counts:
        told = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
        raise InvalidInput(
            f'the outputs {told} do not have as many rows each; send "inputs" (columns) in place of "instances"'
        )
    if len(values) == 1:
        return _dump({"predictions": next(iter(values.values()))})
    (count,) = counts.pop()
    return _dump({"predictions": [{name: value[row] for name, value in values.items()} for row in range(count)]})


def decode_classify(body: bytes, model: ModelDescription) -> TfRequest:
    """Reads the body of `:classify`.

    Args:
        body: The whole body.
        model: The version that will answer.

    Raises:
        InvalidInput: It is not of the protocol's form, or not what the model takes.
    """
    document = _parse(body)
    signature = choose_signature(_text(document, "signature_name"), classify_signatures())
    context = document.get("context", {})
    examples = document.get("examples")
    if not isinstance(context, dict) or not isinstance(examples, list):
        raise InvalidInput('expected "examples" as a list of objects and "context" as an object or nothing')
    shared = _features(context)
    return TfRequest(decode_examples([shared | _features(example) for example in examples], model), signature)


def encode_classify(response: InferResponse) -> bytes:
    """Writes the answer of `:classify`.

    Args:
        response: What the service answered.

    Raises:
        InvalidInput: The model is no classifier.
    """
    return _dump({"results": read_scores(response)})


# ---- bodies ----


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"expected JSON, received a body that is none: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f'expected a JSON object such as {{"instances": […]}}, received {_kind(document)}')
    return document


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise InvalidInput(f'expected "{key}" as text, received {_kind(value)}')
    return value


def _columns(value: object, model: ModelDescription) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_bytes(value):
        return value
    return {_only_input(model): value}


def _columns_of_rows(rows: object, model: ModelDescription) -> dict[str, Any]:
    if isinstance(rows, np.ndarray):
        return {_only_input(model): rows}
    if not isinstance(rows, list) or not rows:
        raise InvalidInput(f'expected "instances" as a list of rows, received {_kind(rows)}')
    first = rows[0]
    if not isinstance(first, dict) or _is_bytes(first):
        return {_only_input(model): rows}
    names = first.keys()
    if not all(isinstance(row, dict) and row.keys() == names for row in rows):
        raise InvalidInput(f"expected the inputs {', '.join(names)} in every row as in the first, received others")
    return {name: [row[name] for row in rows] for name in names}


def _only_input(model: ModelDescription) -> str:
    if len(model.inputs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in model.inputs)
        raise InvalidInput(f"expected the inputs of '{model.name}' by name ({names}), received values without")
    return model.inputs[0].name


# ---- values to tensors ----


def _to_array(name: str, spec: TensorSpec, value: object, *, takes_pictures: bool) -> Array:
    if isinstance(value, np.ndarray):
        return _decode_box(name, spec, value)
    values, shape = _flatten(name, value)
    if takes_pictures and (name == IMAGE_BYTES or any(isinstance(value, (dict, str)) for value in values[:1])):
        return np.atleast_1d(decode_values(name, "BYTES", shape, [_read_picture(name, value) for value in values]))
    if spec.datatype == "BYTES":
        return decode_values(name, "BYTES", shape, [_read_bytes(name, value) for value in values])
    allowed: set[type] = {bool} if spec.datatype == "BOOL" else {int, float} if spec.datatype in _FLOATS else {int}
    if not {*map(type, values)} <= allowed:
        stranger = next(value for value in values if type(value) not in allowed)
        raise InvalidInput(f"expected {spec.datatype} values for '{name}', received {_kind(stranger)}")
    return decode_values(name, spec.datatype, shape, values)


def _decode_box(name: str, spec: TensorSpec, box: Array) -> Array:
    if name == IMAGE_BYTES or not holds_bytes(spec.datatype):
        raise InvalidInput(f"expected {spec.datatype} values for '{name}', received numbers")
    return decode_values(name, spec.datatype, box.shape, box.ravel())


def _flatten(name: str, value: object) -> tuple[list[Any], list[int]]:
    """The values of nested lists, and the shape that the lists have."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if not all(isinstance(element, list) and len(element) == size for element in level):
            raise InvalidInput(
                f"expected lists of one shape for '{name}', received some of other lengths than the first"
            )
        if len(shape) == MAX_NESTING:
            raise InvalidInput(f"expected lists nested at most {MAX_NESTING} deep for '{name}', received deeper ones")
        shape.append(size)
        level = [*chain.from_iterable(level)]
    return level, shape


def _read_picture(name: str, value: object) -> bytes:
    if not isinstance(value, dict):
        raise InvalidInput(
            f'expected pixels or {{"b64": "…"}} of encoded pictures for \'{name}\', received {_kind(value)}'
        )
    return _read_bytes(name, value)


def _read_bytes(name: str, value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict) or not _is_bytes(value):
        raise InvalidInput(f'expected text or {{"b64": "…"}} for \'{name}\', received {_kind(value)}')
    try:
        return base64.b64decode(value[B64], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"expected base64 for '{name}': {error}") from None


def _is_bytes(value: Mapping[str, Any]) -> bool:
    return value.keys() == {B64} and isinstance(value[B64], str)


def _features(example: object) -> dict[str, Any]:
    if not isinstance(example, dict):
        raise InvalidInput(f"expected an example as an object of features, received {_kind(example)}")
    return {name: _feature(name, value) for name, value in example.items()}


def _feature(name: str, value: object) -> list[Any]:
    values, shape = _flatten(name, value)
    if len(shape) > 1:
        raise InvalidInput(f"expected one value or a list of values in the feature '{name}', received nested lists")
    kinds = {*map(type, values)}
    if kinds <= {int, float}:
        return values
    if kinds <= {str, dict}:
        return [_read_bytes(name, value) for value in values]
    raise InvalidInput(f'expected only numbers, or only text and {{"b64": "…"}}, in the feature \'{name}\'')


# ---- tensors to values ----


def _to_json(name: str, array: Array) -> Any:
    """What orjson can write: the array itself, or lists of texts or of base64."""
    if not array.dtype.hasobject:
        return np.ascontiguousarray(array) if array.ndim else array.item()
    texts = None if name.endswith(BYTES_SUFFIX) else _to_texts(array.ravel())
    if texts is None:
        texts = [{B64: base64.b64encode(element).decode()} for element in array.ravel()]
    told = np.empty(array.size, np.object_)
    told[:] = texts
    return told.reshape(array.shape).tolist()


def _to_texts(elements: Iterable[bytes]) -> list[Any] | None:
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError:
        return None


def _dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _kind(value: object) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return {dict: "an object", bool: "true or false", type(None): "null"}.get(type(value), f"the number {value}")
