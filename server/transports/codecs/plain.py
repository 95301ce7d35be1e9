"""The plain HTTP interface: pictures or numbers in, classes out.

{"data": […]}            ─┐
{"images": ["base64"]}    ├─▶ InferRequest      InferResponse ─▶ {"predictions": [42], "labels": […], …}
a form with files         │
a picture's own bytes    ─┘
"""

import base64
import binascii
import contextlib
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson

from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse, Numbers
from server.transports.codecs import json_boxes
from server.transports.codecs.multipart import parse_form
from server.transports.codecs.ranking import best_classes, label_of, probabilities_of

MAX_TOP_K: Final = 1000
MAX_NESTING: Final = 4  # a list of pictures, rows, pixels, channels
_DATA: Final = json_boxes.pattern_of("data")
_KEYS: Final = ("data", "images", "scale", "top_k")
_SCALES: Final = ("0-255", "0-1")


class PlainRequest(NamedTuple):
    """What a body of the plain interface holds.

    Args:
        infer: The pictures or numbers; model, version and the rest are the transport's to fill in.
        top_k: How many classes to name for each picture besides the answer's usual fields, or None.
    """

    infer: InferRequest
    top_k: int | None = None


def decode_request(body: bytes, content_type: str) -> PlainRequest:
    """Reads a body of `POST /predict`.

    The Content-Type decides only where it must: clients send octet-stream, a form's default or nothing with JSON and
    pictures alike, and the two cannot be mistaken for each other.

    Args:
        body: The whole body.
        content_type: The header's value, or "".

    Raises:
        InvalidInput: The body is empty, no JSON, or not of the documented form.
    """
    if not body:
        raise InvalidInput(
            'expected a picture\'s bytes, a form with files or {"data": [...]}, received an empty body;'
            " try: curl -F file=@picture.png <address>/predict"
        )
    match form_of(body, content_type):
        case "form":
            return _decode_form(body, content_type)
        case "json":
            return _decode_json(body)
    return PlainRequest(InferRequest(images=(body,)))


def form_of(body: bytes, content_type: str) -> Literal["form", "json", "picture"]:
    """What a body is, by its Content-Type where that says it and by its bytes elsewhere.

    Args:
        body: The whole body.
        content_type: The header's value, or "".
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        return "form"
    if kind.endswith("json") or (not kind.startswith("image/") and body.lstrip()[:1] in (b"{", b"[")):
        return "json"
    return "picture"


def encode_response(response: InferResponse, top_k: int | None, request_id: str) -> bytes:
    """Writes the answer of `POST /predict`.

    Args:
        response: What the service answered.
        top_k: How many classes to list for each picture under "top"; None leaves "top" out.
        request_id: The request's id.

    Raises:
        InvalidInput: The model is no classifier.
    """
    probabilities = probabilities_of(response)
    best = probabilities.argmax(axis=1)
    answer: dict[str, Any] = {
        "predictions": best,
        "labels": [label_of(response.labels, index) for index in best.tolist()],
        "confidence": probabilities[np.arange(len(best)), best],
        "probabilities": probabilities,
        "model": response.model,
        "version": response.version,
        "variant": response.variant,
        "request_id": request_id,
    }
    if top_k is not None:
        answer["top"] = _top(probabilities, top_k, response.labels)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def read_top_k(value: object) -> int:
    """Reads `top_k` of a query, a form or a JSON body.

    Args:
        value: A whole number, or its text.

    Raises:
        InvalidInput: It is none, or out of range.
    """
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_TOP_K:
        raise InvalidInput(f"expected top_k as a whole number from 1 to {MAX_TOP_K}, received {text[:40]!r}")
    return int(text)


def decode_base64(values: object) -> tuple[bytes, ...]:
    """Reads a list of pictures in base64.

    Args:
        values: What "images" of a JSON body holds.

    Raises:
        InvalidInput: It is no list of base64 texts, or one of them is empty.
    """
    if not isinstance(values, list) or not values:
        raise InvalidInput(f'expected "images" as a list of base64 strings, received {_kind(values)}')
    return tuple(_decode_one_base64(position, value) for position, value in enumerate(values))


def _top(probabilities: Array, top_k: int, labels: tuple[str, ...]) -> list[list[dict[str, Any]]]:
    classes = best_classes(probabilities, top_k)
    scores = np.take_along_axis(probabilities, classes, axis=1)
    return [
        [
            {"class": index, "label": label_of(labels, index), "probability": score}
            for index, score in zip(row.tolist(), row_scores, strict=True)
        ]
        for row, row_scores in zip(classes, scores, strict=True)
    ]


def _decode_form(body: bytes, content_type: str) -> PlainRequest:
    images, top_k = [], None
    for part in parse_form(body, content_type):
        if part.filename is None and part.name == "top_k":
            top_k = read_top_k(part.content.decode("latin-1"))
        elif not part.content:
            raise InvalidInput(f"expected a picture in the field '{part.name}', received no bytes")
        else:
            images.append(part.content)
    if not images:
        raise InvalidInput("expected at least one file in the form, received none; try: curl -F file=@picture.png")
    return PlainRequest(InferRequest(images=tuple(images)), top_k)


def _decode_json(body: bytes) -> PlainRequest:
    boxed = json_boxes.loads(body, _DATA, lambda document: (document,))
    if boxed is not None:
        with contextlib.suppress(InvalidInput):  # its message is to be about the body as it came
            return _read_document(boxed)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"expected JSON, received a body that is none: {error}") from None
    return _read_document(document)


def _read_document(document: object) -> PlainRequest:
    if not isinstance(document, dict):
        raise InvalidInput(f'expected a JSON object such as {{"data": [...]}}, received {_kind(document)}')
    unknown = sorted(document.keys() - set(_KEYS))
    if unknown:
        raise InvalidInput(f"expected the keys {', '.join(_KEYS)}, received {unknown[0]!r} too")
    if ("data" in document) == ("images" in document):
        raise InvalidInput('expected either "data" (numbers) or "images" (base64), received both or neither')
    top_k = read_top_k(document["top_k"]) if "top_k" in document else None
    if "images" in document:
        return PlainRequest(InferRequest(images=decode_base64(document["images"])), top_k)
    scale = document.get("scale", "")
    if scale not in ("", *_SCALES):
        raise InvalidInput(f'expected "scale" as "0-255" or "0-1", received {scale!r:.40}')
    return PlainRequest(InferRequest(numbers=Numbers(_to_array(document["data"]), scale)), top_k)


def _decode_one_base64(position: int, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidInput(f'expected "images"[{position}] as a base64 string, received {_kind(value)}')
    if value.startswith("data:"):  # what a browser's FileReader and canvas give
        value = value.partition(",")[2]
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f'expected "images"[{position}] as base64: {error}') from None
    if not data:
        raise InvalidInput(f'expected a picture in "images"[{position}], received no bytes')
    return data


def _to_array(data: object) -> Array:
    """Nested lists to an array: `uint8` where every number is a whole one from 0 to 255, `float64` otherwise.

    Level by level, because `np.asarray` takes twice as long, and turns a list that hides one long text into an array
    with room for that text in every place.
    """
    if isinstance(data, np.ndarray) and data.ndim <= MAX_NESTING:
        return data
    if not isinstance(data, list) or not data:
        raise InvalidInput(f'expected "data" as a list of numbers, received {_kind(data)}')
    level, shape = data, [len(data)]
    while level and isinstance(level[0], list):
        if len(shape) == MAX_NESTING or not _same_lengths(level):
            raise InvalidInput(_find_ragged(data))
        shape.append(len(level[0]))
        level = [*chain.from_iterable(level)]
    if not level:
        raise InvalidInput(f'expected numbers in "data", received empty lists: shape {shape}')
    try:
        return np.frombuffer(bytes(level), np.uint8).reshape(shape)
    except (TypeError, ValueError):  # a fraction, beyond a byte, or no number
        pass
    if {*map(type, level)} <= {int, float}:
        return np.array(level, np.float64).reshape(shape)
    raise InvalidInput(_find_ragged(data) if list in map(type, level) else _find_stranger(level))


def _same_lengths(lists: list[Any]) -> bool:
    try:
        return len({*map(len, lists)}) == 1
    except TypeError:  # a number among them
        return False


def _find_ragged(data: list[Any]) -> str:
    """Where nested lists stop being a box: a message that names the place, the shape before it and what is there."""
    expected = _shape_of_first(data)
    if len(expected) > MAX_NESTING:
        return f'expected "data" nested at most {MAX_NESTING} deep, received {len(expected)} levels'
    place, received = _first_odd(data, expected, "data")
    return f"expected shape {list(expected)} throughout by its first element, received {received} at {place}"


def _shape_of_first(value: object) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _first_odd(value: object, expected: tuple[int, ...], place: str) -> tuple[str, str]:
    if not expected:
        return (place, f"a list of {len(value)}") if isinstance(value, list) else ("", "")
    if not isinstance(value, list):
        return place, f"{_kind(value)} in place of a list of {expected[0]}"
    if len(value) != expected[0]:
        return place, f"a list of {len(value)} in place of {expected[0]}"
    for position, element in enumerate(value):
        odd = _first_odd(element, expected[1:], f"{place}[{position}]")
        if odd[0]:
            return odd
    return "", ""


def _find_stranger(values: list[Any]) -> str:
    stranger = next(value for value in values if type(value) not in (int, float))
    return f'expected only numbers in "data", received {_kind(stranger)}'


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return {dict: "an object", bool: "true or false", type(None): "null"}.get(type(value), f"the number {value}")
