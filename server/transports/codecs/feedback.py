"""What callers say was right, as JSON.

{"request_id": …, "label": …}, or a list ──▶ Feedback      Taken ──▶ {"accepted": 1, "correct": 0, "unknown": []}
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from server.errors import InvalidInput
from server.feedback import Feedback, Taken
from server.transports.request_ids import request_id_of

MAX_ITEMS: Final = 1000
MAX_LABEL: Final = 1000
MAX_POSITION: Final = 1 << 20
MAX_CLASS: Final = 1 << 31
_KEYS: Final = ("request_id", "label", "position")
_EXAMPLE: Final = '{"request_id": "…", "label": "cat"}'


def decode_request(body: bytes) -> list[Feedback]:
    """Reads a body of `POST /feedback`.

    Args:
        body: The whole body.

    Raises:
        InvalidInput: It is not of the documented form.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"expected JSON such as {_EXAMPLE}, received a body that is none: {error}") from None
    items = document if isinstance(document, list) else [document]
    if not 0 < len(items) <= MAX_ITEMS:
        raise InvalidInput(f"expected 1 to {MAX_ITEMS:,} pieces of feedback, received {len(items):,}")
    return [_read_item(item) for item in items]


def encode_response(taken: Taken) -> bytes:
    """Writes the answer of `POST /feedback`.

    Args:
        taken: What became of it.
    """
    unknown = [{"request_id": one.request_id, "position": one.position} for one in taken.unknown]
    return orjson.dumps({"accepted": taken.accepted, "correct": taken.correct, "unknown": unknown})


def _read_item(item: object) -> Feedback:
    if not isinstance(item, dict):
        raise InvalidInput(f"expected feedback as an object such as {_EXAMPLE}, received {item!r:.60}")
    unknown = sorted(item.keys() - set(_KEYS))
    if unknown or not {"request_id", "label"} <= item.keys():
        raise InvalidInput(
            f"expected request_id, label and perhaps position, received {', '.join(sorted(item)) or 'none'}"
        )
    return Feedback(_read_id(item), _read_label(item), _read_position(item))


def _read_id(item: Mapping[str, Any]) -> str:
    given = item["request_id"]
    if not isinstance(given, str) or request_id_of(given) != given:
        raise InvalidInput(f"expected request_id as the answer's X-Request-Id has it, received {given!r:.60}")
    return given


def _read_label(item: Mapping[str, Any]) -> str | int:
    label = item["label"]
    if isinstance(label, str) and 0 < len(label) <= MAX_LABEL and label.isprintable():
        return label
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label <= MAX_CLASS:
        return label
    raise InvalidInput(f"expected label as a class's name or number, received {label!r:.60}")


def _read_position(item: Mapping[str, Any]) -> int:
    position = item.get("position", 0)
    if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position <= MAX_POSITION:
        raise InvalidInput(
            f"expected position as the picture's place in its request, from 0, received {position!r:.60}"
        )
    return position
