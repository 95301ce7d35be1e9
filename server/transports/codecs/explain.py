"""A request for a class-activation map, and its answer: the plain interface's bodies, with a class beside the picture.

{"images": ["base64"], "class": "cat"}  ─┐
a form with a file, and a field "class"  ├─▶ ExplainBody      Explanation ─▶ {"class": 3, "map": [[…]], …}
a picture's own bytes                   ─┘
"""

from typing import Final, NamedTuple

import numpy as np
import orjson

from server.errors import InvalidInput
from server.explanation import METHOD, Explanation
from server.transports.codecs.multipart import parse_form
from server.transports.codecs.plain import decode_base64, form_of

_KEYS: Final = ("images", "class")
_DECIMALS: Final = 4  # of a share of 1: finer than any colour on a screen


class ExplainBody(NamedTuple):
    """What a body holds.

    Args:
        image: The encoded picture.
        wanted: A label or a class's number; None where the body does not say.
    """

    image: bytes
    wanted: str | int | None = None


def decode_request(body: bytes, content_type: str) -> ExplainBody:
    """Reads a body of `POST /explain`.

    Args:
        body: The whole body.
        content_type: The header's value, or "".

    Raises:
        InvalidInput: It is none of the documented forms, or brings no picture, or several.
    """
    if not body:
        raise InvalidInput(
            'expected a picture\'s bytes, a form with a file or {"images": [...]}, received an empty body;'
            " try: curl -F file=@picture.png <address>/explain"
        )
    match form_of(body, content_type):
        case "form":
            return _decode_form(body, content_type)
        case "json":
            return _decode_json(body)
    return ExplainBody(body)


def encode_response(explanation: Explanation, request_id: str) -> bytes:
    """Writes the answer of `POST /explain`.

    Args:
        explanation: What the service answered.
        request_id: The request's id.
    """
    height, width = explanation.heat.shape
    answer = {
        "class": explanation.index,
        "label": explanation.label,
        "probability": explanation.probability,
        "method": METHOD,
        "height": height,
        "width": width,
        "map": np.ascontiguousarray(explanation.heat.round(_DECIMALS)),
        "model": explanation.model,
        "version": explanation.version,
        "request_id": request_id,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _decode_form(body: bytes, content_type: str) -> ExplainBody:
    images, wanted = [], None
    for part in parse_form(body, content_type):
        if part.filename is None and part.name == "class":
            wanted = part.content.decode("utf-8", "replace")
        else:
            images.append(part.content)
    return ExplainBody(_only(images), wanted)


def _decode_json(body: bytes) -> ExplainBody:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"expected JSON, received a body that is none: {error}") from None
    if not isinstance(document, dict) or not {"images"} <= document.keys() <= {*_KEYS}:
        received = ", ".join(document) if isinstance(document, dict) else type(document).__name__
        raise InvalidInput(
            f'expected a JSON object {{"images": ["<base64>"], "class": …}} ("class" may be missing), received'
            f" {received[:80] or 'an empty one'}"
        )
    wanted = document.get("class")
    if isinstance(wanted, bool) or not isinstance(wanted, (str, int, type(None))):
        raise InvalidInput(f'expected "class" as a label or a whole number, received {str(wanted)[:40]}')
    return ExplainBody(_only([*decode_base64(document["images"])]), wanted)


def _only(images: list[bytes]) -> bytes:
    if len(images) != 1 or not images[0]:
        raise InvalidInput(
            f"expected one picture, received {len(images)}{' without a byte' if len(images) == 1 else ''};"
            " ask for one map at a time"
        )
    return images[0]
