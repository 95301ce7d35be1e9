"""Refuses HTTP requests before anything is spent on them, while there is more to do than can be done in time.

    bytes ──whole prediction request, and congested?──▶ 429 from a template, 16 to 19 µs, most of it the kernel's
        └──otherwise──▶ aiohttp: parser, request, task, handler, about 150 µs

At twice the capacity every second request is refused. If that cost as much as an answer's Python does, refusing would
eat the core that should answer: at x times the capacity, with refusals that cost the share r of an answer, goodput is
(1 - x·r) / (1 - r) of the capacity, so 90 % at twice the capacity needs r < 9 %.
"""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from server.congestion import Congestion
from server.metrics import Metrics
from server.transports.http_foreign import as_problem
from server.transports.http_keys import REQUEST_ID
from server.transports.request_ids import request_id_of

_START: Final = b"POST /predict"
_HEAD_END: Final = b"\r\n\r\n"
_DETAIL: Final = (
    b"overloaded: more requests are under way than can be answered within the latency budget; send the request again"
    b" later"
)
_PROBLEM: Final = (
    b'{"type":"urn:shoal:overloaded","title":"Too much to do to answer in time","status":429,"detail":"%s",'
    b'"request_id":"' % _DETAIL
)
_BODY: Final = _PROBLEM + b'"}'
_HEAD: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nServer: Shoal\r\nServer-Timing: total;dur=0.0\r\nRetry-After: 1\r\n"
    b"X-Request-Id: %s\r\n"
)
_ANSWER: Final = _HEAD + b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n" + _PROBLEM + b'%s"}'
_V2_BODY: Final = b'{"error":"%s"}' % _DETAIL
_V2_ANSWER: Final = _HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_V2_BODY) + _V2_BODY
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
# A request that says any of these is for the whole machinery: it brings its own budget or name, or is not plain.
_SPECIAL: Final = re.compile(
    rb"\r\n(?:x-latency-budget-ms|x-request-id|expect|transfer-encoding|upgrade|connection:(?![ \t]*keep-alive))",
    re.IGNORECASE,
)
FIRST_ERROR: Final = 400
# Heads that are remembered, none so long that they would take much memory.
MAX_KEPT: Final = 512
MAX_KEPT_BYTES: Final = 1024

OTHER: Final = 0
PART: Final = 1
PREDICT: Final = 2


class SheddingHandler(RequestHandler):
    """One connection: aiohttp's handler, and in front of it the question whether to take the request at all."""

    __slots__ = ("_congestion", "_counted", "_metrics", "_on_lost", "_whole")

    def __init__(
        self, server: web.Server, congestion: Congestion, metrics: Metrics, on_lost: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(server, **options)
        self._congestion = congestion
        self._metrics = metrics
        self._on_lost = on_lost
        self._counted = False  # a request of this connection is among those under way
        self._whole = True  # everything so far came as whole requests, so the next bytes begin one

    def data_received(self, data: bytes) -> None:
        """Refuses the request in `data`, or hands it on; aiohttp's own event."""
        if self.shed(data):
            return
        if not self._counted:
            self._whole = self._whole and _kind(data) != PART
            self._counted = True
            self._congestion.enter()
        super().data_received(data)

    def shed(self, data: bytes) -> bool:
        """Refuses the request in `data` where there is too much to do already, and it is a plain one.

        Args:
            data: What the connection has received.

        Returns:
            Whether it did.
        """
        congestion = self._congestion
        if congestion.under_way < congestion.limit or not self._whole or self._counted:
            return False
        if _kind(data) != PREDICT or not self._at_rest():
            return False
        self._refuse(request_id_of(None))
        return True

    async def finish_response(
        self, request: Any, resp: Any, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Writes the answer; aiohttp's own step after a handler."""
        if REQUEST_ID not in request:  # no handler of ours saw it
            resp = as_problem(resp)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._uncount(answered=resp.status < FIRST_ERROR)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; aiohttp's own event."""
        super().connection_lost(exc)
        self._uncount(answered=False)
        self._on_lost()

    def _uncount(self, *, answered: bool) -> None:
        if self._counted:
            self._counted = False
            self._congestion.leave(time.monotonic(), answered=answered)

    def _at_rest(self) -> bool:
        """Whether aiohttp has nothing of this connection left to parse or to handle; what it wrote went out before."""
        return not (self._messages or self._close or self._force_close or self._upgraded)

    def _refuse(self, request_id: str, *, v2: bool = False) -> None:
        assert self.transport is not None
        name = request_id.encode()
        if v2:
            self.transport.write(_V2_ANSWER % name)
        else:
            self.transport.write(_ANSWER % (name, len(_BODY) + len(name), name))
        self._metrics.count_shed("v2_http" if v2 else "http")


def _kind(data: bytes) -> int:
    """Tells a whole, plain prediction request from a part of one and from everything else."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return PART
    body_at = head_end + len(_HEAD_END)
    head = data[:body_at]
    kind, body_bytes = _kept_head(head) if body_at <= MAX_KEPT_BYTES else _read_head(head)
    return kind if body_at + body_bytes == len(data) else PART


def _read_head(head: bytes) -> tuple[int, int]:
    """What a whole request with this head would be, and the length of its body."""
    length = _LENGTH.search(head, 0, len(head) - 2)
    if length is None:
        return (OTHER, 0) if head.startswith(b"GET ") else (PART, 0)
    plain = head.startswith(_START) and _SPECIAL.search(head, 0, len(head) - 4) is None
    return (PREDICT if plain else OTHER), int(length[1])


# Clients send the same heads again and again.
_kept_head: Final = lru_cache(MAX_KEPT)(_read_head)
