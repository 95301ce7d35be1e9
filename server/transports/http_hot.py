"""Reads and writes the HTTP of plain prediction requests: those that came whole and say nothing out of the ordinary.

    bytes ─▶ read ─┬─▶ Hot: what it asks of whom        answer ─▶ spell ─▶ bytes
                   └─▶ None: aiohttp's to read

aiohttp reads everything that HTTP allows, which costs a request 100 µs and more: a parser's objects, a request, a
response, two tasks, middleware. What nearly every request looks like is one line, a few headers and a body. The grammar
here is far narrower than RFC 9112's, and whatever does not fit it is left alone.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from aiohttp.helpers import rfc822_formatted_time

from server.transports.http_inference import Answer, Call
from server.transports.request_ids import request_id_of

_HEAD: Final = re.compile(
    rb"POST (?:"
    rb"/predict(?:/(?P<plain>[-A-Za-z0-9._]+))?"
    rb"|/v2/models/(?P<v2>[-A-Za-z0-9._]+)(?:/versions/(?P<version>[0-9]+))?/infer"
    rb") HTTP/1\.1\r\n"
    rb"(?P<fields>(?:[-A-Za-z0-9_]+:[\t -~]*\r\n)+)\r\n"
)
# Whoever sends one of these wants more of HTTP than is done here.
_SPECIAL: Final = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer", b"authorization", b"cookie"}
)
# Where callers have to say who they are, and that can be looked up.
_SPECIAL_BUT_CREDENTIALS: Final = _SPECIAL - {b"authorization"}
_MAX_DIGITS: Final = 9
# Heads that are remembered: as many as clients of many kinds send, and none so long that they would take much memory.
MAX_KEPT: Final = 512
MAX_KEPT_BYTES: Final = 1024
_CLOSE: Final = "Connection: close\r\n"


class Hot(NamedTuple):
    """A request that was read.

    Args:
        call: What is asked.
        v2: Whether by the Open Inference Protocol.
        path: Its path.
    """

    call: Call
    v2: bool
    path: str


class Head(NamedTuple):
    """A request's head, read.

    Args:
        v2: Whether it is the Open Inference Protocol's.
        path: Its path.
        model: Of the path, or empty.
        version: Of the path.
        body_bytes: How long its body is.
        content_type: The header's value, or "".
        request_id: As the caller gave it.
        budget_ms: The header's value.
        header_length: Of V2's JSON, by its header.
        fields: Every header.
    """

    v2: bool
    path: str
    model: str
    version: str | None
    body_bytes: int
    content_type: str
    request_id: str | None
    budget_ms: str | None
    header_length: str | None
    fields: Mapping[bytes, bytes]


class Heads:
    """Heads that were read before: a client sends the same one again and again, and so do others of its kind."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def read(self, text: bytes) -> Head | None:
        """Reads a head whose sender does not matter.

        Args:
            text: From its first line to the empty one.

        Returns:
            The head, or None where it is nothing of the plain kind.
        """
        head = self._known.get(text)
        if head is None:
            head = read_head(text, _SPECIAL)
            # One with a name of its own comes once.
            if head is not None and head.request_id is None and len(text) <= MAX_KEPT_BYTES:
                if len(self._known) >= MAX_KEPT:
                    self._known.clear()
                self._known[text] = head
        return head


def read(
    data: bytes,
    limit_bytes: int,
    recognise: Callable[[Mapping[bytes, bytes]], bool] | None = None,
    heads: Heads | None = None,
) -> Hot | int | None:
    """Reads a request.

    Args:
        data: What a connection that was at rest has received.
        limit_bytes: Of bodies.
        recognise: Whether the sender of such headers is known and may ask; None where anybody may.
        heads: Remembers heads; not asked where there is somebody to recognise, because then heads hold credentials.

    Returns:
        The request; or its length where only its head and a part of its body are there; or None where `data` is nothing
        of the plain kind.
    """
    if not data.startswith(b"POST /"):
        return None
    end = data.find(b"\r\n\r\n") + 4
    text = data[:end]
    if recognise is not None:
        head = read_head(text, _SPECIAL_BUT_CREDENTIALS)
    else:
        head = read_head(text, _SPECIAL) if heads is None else heads.read(text)
    if head is None or head.body_bytes > limit_bytes or (recognise is not None and not recognise(head.fields)):
        return None
    whole = end + head.body_bytes
    if whole != len(data):
        return whole if whole > len(data) else None
    call = Call(
        data[end:],
        request_id_of(head.request_id),
        head.model,
        head.version,
        None,
        head.content_type,
        head.budget_ms,
        head.header_length,
    )
    return Hot(call, head.v2, head.path)


def read_head(text: bytes, special: frozenset[bytes]) -> Head | None:
    """Reads a request's head.

    Args:
        text: From its first line to the empty one.
        special: Headers that are not for here.

    Returns:
        The head, or None where it is nothing of the plain kind.
    """
    found = _HEAD.fullmatch(text)
    if found is None:
        return None
    fields = _read_fields(found["fields"], special)
    if fields is None or b"host" not in fields:
        return None
    named = found["v2"]
    if named is not None and b"accept-encoding" in fields:  # its answers may be compressed
        return None
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > _MAX_DIGITS:
        return None
    return Head(
        v2=named is not None,
        path=text[5 : text.index(b" ", 5)].decode(),
        model=(named or found["plain"] or b"").decode(),
        version=_text(found["version"]),
        body_bytes=int(length),
        content_type=fields.get(b"content-type", b"").decode(),
        request_id=_text(fields.get(b"x-request-id")),
        budget_ms=_text(fields.get(b"x-latency-budget-ms")),
        header_length=_text(fields.get(b"inference-header-content-length")),
        fields=fields,
    )


def spell(answer: Answer, request_id: str, timing: str, *, close: bool) -> bytes:
    """An answer as bytes.

    Args:
        answer: What the service answered.
        request_id: The request's name.
        timing: The value of `Server-Timing`.
        close: Whether the connection ends with it.
    """
    headers = ""
    if answer.header_length is not None:
        headers = f"Inference-Header-Content-Length: {answer.header_length}\r\n"
    return spell_head(200, "OK", answer.kind, len(answer.body), request_id, timing, headers, close=close) + answer.body


def spell_head(
    status: int, reason: str, kind: str, length: int, request_id: str, timing: str, headers: str, *, close: bool
) -> bytes:
    """The head of an answer.

    Args:
        status: The HTTP status.
        reason: Its phrase.
        kind: The body's media type.
        length: The body's length in bytes.
        request_id: The request's name.
        timing: The value of `Server-Timing`.
        headers: Further header lines, each with its line end.
        close: Whether the connection ends with it.
    """
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\n{headers}Content-Length: {length}\r\nServer: Shoal\r\n"
        f"X-Request-Id: {request_id}\r\nServer-Timing: {timing}\r\nDate: {rfc822_formatted_time()}\r\n"
        f"{_CLOSE if close else ''}\r\n"
    ).encode("ascii")


def _read_fields(lines: bytes, special: frozenset[bytes]) -> dict[bytes, bytes] | None:
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name in fields or name in special or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        fields[name] = value
    return fields


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
