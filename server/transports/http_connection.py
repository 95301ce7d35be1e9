"""One HTTP connection: plain prediction requests are answered right here, everything else by aiohttp.

    bytes ─┬─ hot (`http_hot`) ─┬─ congested? ─▶ 429 from a template (`http_shedding`)
           │                    └─ one task: codec, service, codec ─▶ one write
           └─ anything else ─▶ aiohttp: parser, request, middleware, handler, response

While a hot request is under way nothing of the connection is handed to aiohttp: what arrives meanwhile is held back.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from server.auth import Caller
from server.congestion import Congestion
from server.metrics import Metrics
from server.security import Security
from server.service import Service
from server.transports.http_hot import Heads, Hot, read, spell, spell_head
from server.transports.http_inference import infer_v2, predict
from server.transports.http_problems import spell_problem, spell_timing
from server.transports.http_security import address_of, credentials_of_fields, forwarded_in, run_guarded
from server.transports.http_shedding import SheddingHandler
from server.transports.v2 import V2

HELD_BYTES: Final = 1 << 16  # a client that pipelines more than this waits in its own socket's buffer
_TOO_SLOW_BODY: Final = (
    b'{"type":"urn:shoal:request-timeout","title":"Request Timeout","status":408,'
    b'"detail":"expected the whole request within --request-timeout-s, received a part of it"}'
)
_TOO_SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nServer: Shoal\r\nConnection: close\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s" % (len(_TOO_SLOW_BODY), _TOO_SLOW_BODY)
)


@dataclass(slots=True)
class Doors:
    """What all connections share.

    Args:
        service: Answers the plain interface.
        metrics: Counts what never reaches the service.
        v2: Answers the Open Inference Protocol.
        body_limit_bytes: Of bodies.
        security: Who is let in.
        traced: Whether the trace that a request is part of is kept, which aiohttp's middleware does.
        heads: What heads were read before.
        running: Requests that are being answered, or whose bodies are on their way, hot or not.
    """

    service: Service
    metrics: Metrics
    v2: V2
    body_limit_bytes: int
    security: Security = field(default_factory=Security)
    traced: bool = False
    heads: Heads = field(default_factory=Heads)
    running: int = 0


class HotHandler(SheddingHandler):
    """See the module.

    Args:
        server: aiohttp's.
        congestion: Whether there is too much to do.
        doors: What answers.
        on_lost: Called when the connection is gone.
        options: aiohttp's own.
    """

    __slots__ = ("_caller", "_doors", "_held", "_hot", "_missing_bytes", "_parts", "_restricted")

    def __init__(
        self, server: web.Server, congestion: Congestion, doors: Doors, on_lost: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(server, congestion, doors.metrics, on_lost, **options)
        self._doors = doors
        self._restricted = doors.security.restricts or doors.traced
        self._caller: Caller | None = None  # who sends what is under way, where that is asked
        self._hot: asyncio.Task[None] | None = None
        self._held = b""
        self._parts: list[bytes] = []
        self._missing_bytes = 0  # of the body whose beginning is in `_parts`

    def data_received(self, data: bytes) -> None:
        """Answers the request in `data`, or hands it on; aiohttp's own event."""
        if self._hot is not None:
            self._hold(data)
        elif self._missing_bytes:
            self._complete(data)
        elif self.shed(data):
            pass
        elif not self._whole or self._counted or self._paused or not self._at_rest() or not self._read(data):
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, and with it whoever waited for an answer; aiohttp's own event."""
        if self._hot is not None:
            self._hot.cancel()
            self._hot = None
            self._doors.running -= 1
        elif self._missing_bytes:
            self._missing_bytes = 0
            self._doors.running -= 1
        super().connection_lost(exc)

    def unfinished(self) -> object | None:
        """What the client has begun and not finished, for `http_patience`: another object for each such thing."""
        if self._hot is not None:
            return None
        if self._missing_bytes:
            return self._parts
        if self._paused:  # there are answers that it does not read
            return self.transport
        if self._current_request is not None:
            return None if self._current_request.content.is_eof() else self._current_request
        return self if self._counted and not self._messages else None  # some of a head

    def give_up(self) -> None:
        """Tells the client that it takes too long, and closes the connection; what it asked for is not done."""
        transport = self.transport
        if transport is None:
            return
        if self._paused:
            transport.abort()
            return
        transport.write(_TOO_SLOW)
        transport.close()

    def _read(self, data: bytes) -> bool:
        """Takes the request in `data`, or its beginning. Returns whether it is one for here."""
        doors = self._doors
        found = read(data, doors.body_limit_bytes, self._recognise if self._restricted else None, doors.heads)
        if found is None:
            return False
        if isinstance(found, int):
            self._parts, self._missing_bytes = [data], found - len(data)
            doors.running += 1  # a stop waits for the rest of it
        else:
            self._take(found)
        return True

    def _recognise(self, fields: Mapping[bytes, bytes]) -> bool:
        """Whether the sender is known and may ask. Everybody else is for aiohttp, whose middleware finds out."""
        security = self._doors.security
        if security.origins and b"origin" in fields:
            return False
        if self._doors.traced and b"traceparent" in fields:
            return False
        if security.guard is not None:
            credentials = credentials_of_fields(fields)
            address = security.guard.address_of(address_of(self.peername), forwarded_in(fields))
            self._caller = security.guard.known(credentials, "predict", address)
            return self._caller is not None
        return True

    def _complete(self, data: bytes) -> None:
        """Takes more of a body: many clients send it apart from the head."""
        part, rest = data[: self._missing_bytes], data[self._missing_bytes :]
        self._parts.append(part)
        self._missing_bytes -= len(part)
        if self._missing_bytes:
            return
        whole, self._parts = b"".join(self._parts), []
        self._doors.running -= 1
        if not self._read(whole):  # while it came, its sender's token ended
            super().data_received(whole)
        if rest:
            self.data_received(rest)

    def _take(self, hot: Hot) -> None:
        if self._congestion.full and hot.call.budget_ms is None:
            self._refuse(hot.call.request_id, v2=hot.v2)
            return
        self._counted = True
        self._congestion.enter()
        self._doors.running += 1
        self._hot = self._loop.create_task(self._answer(hot))

    async def _answer(self, hot: Hot) -> None:
        started_s = time.perf_counter()
        doors, call = self._doors, hot.call
        answered = False
        try:
            work = infer_v2(doors.v2, call) if hot.v2 else predict(doors.service, doors.metrics, call)
            answer = await (work if self._caller is None else run_guarded(doors, self._caller, work, v2=hot.v2))
            answered = True
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and everyone else goes on
            data = self._spell_problem(error, hot, time.perf_counter() - started_s)
        else:
            timing = spell_timing(answer.timing, time.perf_counter() - started_s)
            data = spell(answer, call.request_id, timing, close=doors.service.draining)
        self._end(data, answered=answered)

    def _spell_problem(self, error: Exception, hot: Hot, took_s: float) -> bytes:
        request_id = hot.call.request_id
        problem = spell_problem(error, hot.path, request_id, self._doors.body_limit_bytes, "POST")
        return (
            spell_head(
                problem.status,
                HTTPStatus(problem.status).phrase,
                problem.kind,
                len(problem.body),
                request_id,
                spell_timing(None, took_s),
                "".join(f"{name}: {value}\r\n" for name, value in problem.headers.items()),
                close=self._doors.service.draining,
            )
            + problem.body
        )

    def _end(self, data: bytes, *, answered: bool) -> None:
        transport = self.transport
        assert transport is not None  # a connection that is lost cancels the task
        self._hot = None
        self._doors.running -= 1
        self._uncount(answered=answered)
        transport.write(data)
        if self._doors.service.draining:
            transport.close()
            return
        self._stay()
        held, self._held = self._held, b""
        if held:
            transport.resume_reading()
            self.data_received(held)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()  # aiohttp's own pausing is about its parser

    # ---- aiohttp closes a kept connection that has been idle for long ----

    def _stay(self) -> None:
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def _process_keepalive(self) -> None:
        if self._hot is not None or self._missing_bytes:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()
