"""HTTP load that does not itself become the limit: raw keep-alive connections on uvloop, about 20 µs of CPU a request.

Closed loop: each connection sends its next request when the answer is there; measures what a server can do at most.
Open loop: requests are sent at random times of a Poisson process whether or not earlier ones were answered, and the
time of a request counts from when it was due; measures what clients feel. It never waits for the server, so it cannot
hide that the server is late (the "coordinated omission" of closed loops).
"""

import asyncio
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks.alarm import Alarm

GONE: Final = 0  # the status of a request whose connection ended before its answer
OK: Final = 200
REFUSED: Final = 429
TICK_S: Final = 1e-3
BURST: Final = 16  # sent at once before answers are read again


@dataclass(frozen=True)
class Question:
    """A request ready to send, and how to know its right answer.

    Args:
        request: The whole HTTP request.
        right: Bytes that a right answer contains; empty where any answer will do.
    """

    request: bytes
    right: bytes = b""


@dataclass
class Tally:
    """What became of the requests.

    Args:
        due_s: When each was due, on the monotonic clock.
        took_s: From then to its answer.
        status: HTTP status; 0 where the connection ended before the answer.
        right: Whether the answer was right.
        late_s: How long after it was due the generator of an open loop came to send each.
    """

    due_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)

    def add(self, due_s: float, took_s: float, status: int, *, right: bool) -> None:
        """Adds one request."""
        self.due_s.append(due_s)
        self.took_s.append(took_s)
        self.status.append(status)
        self.right.append(right)

    def felt_ms(self, share: float) -> float:
        """The time within which this share of all requests was answered rightly, in milliseconds.

        A refusal, a wrong answer and a missing one are infinitely late answers: a p99 bears one in a hundred of them.

        Args:
            share: Of the requests, above 0 and at most 1.
        """
        good = (np.array(self.status) == OK) & np.array(self.right, bool)
        took_s = np.where(good, self.took_s, np.inf)
        # Not interpolated: between a number and infinity there is nothing.
        return round(float(np.quantile(took_s, share, method="inverted_cdf")) * 1000, 3)

    @property
    def elapsed_s(self) -> float:
        """From the first request to the last answer."""
        ends_s = (due_s + took_s for due_s, took_s in zip(self.due_s, self.took_s, strict=True))
        return max(ends_s) - min(self.due_s)

    def summary(self, budget_s: float = 0.2) -> dict[str, Any]:
        """Counts by status, and quantiles in milliseconds of answered and of refused requests.

        Args:
            budget_s: Right answers within it count as good.
        """
        took, status, right = np.array(self.took_s), np.array(self.status), np.array(self.right, bool)
        answered = status == OK
        length_s = max(self.due_s) - min(self.due_s) if len(self.due_s) > 1 else 0.0
        good = int((answered & right & (took <= budget_s)).sum())
        return {
            "requests": len(took),
            "seconds": round(length_s, 3),
            "by_status": {str(key): count for key, count in sorted(Counter(self.status).items())},
            "wrong": int((answered & ~right).sum()),
            "good_per_s": round(good / length_s, 1) if length_s else 0.0,
            "answered_ms": quantiles_ms(took[answered]),
            "refused_ms": quantiles_ms(took[status == REFUSED]),
        } | ({"late_ms": quantiles_ms(np.array(self.late_s))} if self.late_s else {})


def quantiles_ms(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Median, p90, p99 and maximum, in milliseconds; empty for no values."""
    if not len(seconds):
        return {}
    values = np.quantile(seconds, [0.5, 0.9, 0.99, 1.0]) * 1000
    return dict(zip(("p50", "p90", "p99", "max"), values.round(3).tolist(), strict=True))


def post(url: str, body: bytes, content_type: str, *, right: bytes = b"", headers: Sequence[str] = ()) -> Question:
    """A POST request.

    Args:
        url: Where to.
        body: What.
        content_type: Of the body.
        right: Bytes that a right answer contains.
        headers: Further header lines.
    """
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return Question("\r\n".join([*lines, "", ""]).encode() + body, right)


Answered = Callable[["Connection", int, bytes], None]


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answered: Answered | None = None
        self._transport: asyncio.Transport | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def send_nowait(self, request: bytes, answered: Answered) -> None:
        """Sends a request.

        Args:
            request: The whole of it.
            answered: Called with this connection, status and body; status 0 when the connection ends first.
        """
        assert self._transport is not None
        self._answered, self._buffer = answered, b""
        self._transport.write(request)

    def ask_nowait(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Sends a request; the future gives status and body, or status 0 when the connection ends first."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def settle(_: Connection, status: int, body: bytes) -> None:
            if not future.done():
                future.set_result((status, body))

        self.send_nowait(request, settle)
        return future

    def data_received(self, data: bytes) -> None:
        """Collects the answer, and settles the request when it is whole."""
        self._buffer += data
        found = whole_answer(self._buffer)
        if found is not None:
            status, body, self.closing = found
            self._settle(status, body)

    def connection_lost(self, _: Exception | None) -> None:
        """Settles what was under way as unanswered."""
        self.closing = True
        self._settle(GONE, b"")

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()

    def _settle(self, status: int, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(self, status, body)


def whole_answer(text: bytes) -> tuple[int, bytes, bool] | None:
    """Status, body, and whether the connection ends with it; None while something is missing.

    Args:
        text: What has come of one HTTP/1.1 answer.
    """
    head_end = text.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, body = text[:head_end].lower(), text[head_end + 4 :]
    at = head.find(b"content-length: ")
    if at >= 0:
        if len(body) < int(head[at + 16 :].split(b"\r\n", 1)[0]):
            return None
    elif b"transfer-encoding: chunked" in head:  # Ray Serve's
        if not body.endswith(b"0\r\n\r\n"):
            return None
        body = _joined(body)
    return int(head[9:12]), body, b"connection: close" in head


def _joined(chunks: bytes) -> bytes:
    body = b""
    while chunks:
        length, _, rest = chunks.partition(b"\r\n")
        end = int(length.split(b";", 1)[0], 16)
        body, chunks = body + rest[:end], rest[end + 2 :]
    return body


async def connect(url: str) -> Connection:
    """Opens a connection to the server of a URL.

    Raises:
        OSError: Nobody listens there.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


async def closed_loop(
    url: str, questions: Sequence[Question], *, connections: int, seconds: float, tally: Tally | None = None
) -> Tally:
    """Keeps so many requests under way for so long.

    Args:
        url: The server.
        questions: Asked in turn.
        connections: How many clients.
        seconds: How long.
        tally: Where to count; a new one by default.
    """
    tally = Tally() if tally is None else tally
    end_s = time.monotonic() + seconds
    asked = itertools.cycle(questions)

    async def client() -> None:
        connection = await connect(url)
        while (due_s := time.monotonic()) < end_s:
            question = next(asked)
            status, body = await connection.ask_nowait(question.request)
            tally.add(due_s, time.monotonic() - due_s, status, right=question.right in body)
            if connection.closing:
                connection.close()
                try:
                    connection = await connect(url)
                except OSError:
                    return
        connection.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return tally


async def open_loop(
    url: str,
    questions: Sequence[Question],
    *,
    rate_per_s: float,
    seconds: float,
    seed: int = 0,
    connections: int = 2048,
    tick_s: float = TICK_S,
) -> Tally:
    """Sends requests at the times of a Poisson process.

    Args:
        url: The server.
        questions: Asked in turn.
        rate_per_s: Mean arrivals in a second.
        seconds: How long.
        seed: Of the arrival times.
        connections: Opened beforehand. A request that finds all of them busy waits for one, which its time counts in.
        tick_s: What falls due within one tick is sent together. A short one is fairer to a fast server, and takes more
            of the generator's core.
    """
    run = _OpenLoop(questions, deque([await connect(url) for _ in range(connections)]))
    generator = random.Random(seed)  # noqa: S311  arrival times need no secrecy
    due_s = time.monotonic()
    end_s = due_s + seconds
    with Alarm() as alarm:
        while (due_s := due_s + generator.expovariate(rate_per_s)) < end_s:
            # Spinning would take a core from the server: what falls due within one tick is sent together, and its time
            # counts from when each was due.
            if (now_s := time.monotonic()) < due_s:
                await alarm.wait_until(max(due_s, now_s + tick_s))
            run.tally.late_s.append(time.monotonic() - due_s)
            run.send(due_s)
            if run.sent % BURST == 0:
                await asyncio.sleep(0)
    await run.finished(url)
    return run.tally


class _OpenLoop:
    def __init__(self, questions: Sequence[Question], idle: deque[Connection]) -> None:
        self.tally = Tally()
        self.sent = 0
        self._asked = itertools.cycle(questions)
        self._idle = idle
        self._all = list(idle)
        self._late: deque[float] = deque()
        self._under_way = 0
        self._done = asyncio.Event()

    def send(self, due_s: float) -> None:
        """Sends the next question on a free connection, or when there is one."""
        self.sent += 1
        if not self._idle:
            self._late.append(due_s)
            return
        # The one used last, as clients' pools do (urllib3, aiohttp, Go): so only a surge uses all of them.
        connection, question = self._idle.pop(), next(self._asked)
        self._under_way += 1

        def answered(connection: Connection, status: int, body: bytes) -> None:
            self._under_way -= 1
            self.tally.add(due_s, time.monotonic() - due_s, status, right=question.right in body)
            if connection.closing:
                connection.close()
            else:
                self._idle.append(connection)
                if self._late:
                    self.send(self._late.popleft())
                    self.sent -= 1
            if not self._under_way and not self._late:
                self._done.set()

        connection.send_nowait(question.request, answered)

    async def finished(self, url: str) -> None:
        """Waits for the answers that are missing, and closes all connections."""
        while self._under_way or self._late:
            self._done.clear()
            if not self._under_way:  # the server has closed every connection
                self._idle.append(await connect(url))
                self.send(self._late.popleft())
            await self._done.wait()
        for connection in self._all:
            connection.close()
