"""Unary gRPC calls that cost the load generator next to nothing: HTTP/2 frames made by hand, one call a connection.

grpcio's own client takes 0.9 ms of CPU time for a call with 98 KB in it, as much as ten pictures take the engine. It is
what users have, but on the server's own cores it would be a good part of what is measured.

    raw_closed_loop ─▶ RawCalls, asyncio ─┬─▶ CallFrames
    locust's users  ─▶ RawClient, sockets ┘
"""

import asyncio
import socket
import time
from typing import Final, Self, cast

from benchmarks.grpc_frames import CallFrames

_READ_BYTES: Final = 1 << 16


class RawClient:
    """One connection for calls that are waited for.

    Under gevent's patches a wait is the greenlet's own. grpcio's client is no choice there: whatever it waits for is
    waited for in gevent's pool of ten threads (`grpc.experimental.gevent`), so of 250 users 240 stand in a queue of
    the client's. With half of 500 users by HTTP, its p99 was 4.8 s where no call took the server more than 0.2.

    Args:
        target: The server, as `host:port`.
        method: The method's path.
        timeout_s: How long a call may take.
    """

    def __init__(self, target: str, method: str, timeout_s: int) -> None:
        host, port = target.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers: list[bytes] = []
        self._frames = CallFrames(target, method, self._socket.sendall, self._answers.append, timeout_s)
        self._frames.open()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self.close()

    def call(self, message: bytes) -> bytes:
        """Makes a call and waits for its answer.

        Args:
            message: The request, serialized.

        Returns:
            The answer, serialized.

        Raises:
            OSError: There is none: `TimeoutError` where nothing came for too long, or `ConnectionError`. The connection
                is of no use any more.
        """
        self._frames.call(message)
        while not self._answers:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._frames.receive(data)
        return self._answers.pop()

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


class RawCalls(asyncio.Protocol):
    """One connection that makes the same call again and again.

    Args:
        authority: The server's address.
        method: The method's path.
        message: The request, serialized.
        end_s: No call begins later, on the monotonic clock.
    """

    def __init__(self, authority: str, method: str, message: bytes, end_s: float) -> None:
        self._frames = CallFrames(authority, method, self._write, self._end_call)
        self._message = message
        self._end_s = end_s
        self._transport: asyncio.Transport | None = None
        #: Calls that were answered.
        self.answered = 0
        #: Done, or the reason why not.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the connection and makes the first call."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._frames.open()
        self._frames.call(self._message)

    def data_received(self, data: bytes) -> None:
        """Takes what the server sends."""
        try:
            self._frames.receive(data)
        except ConnectionError as error:
            self._finish(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the calls that are left."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def _end_call(self, _: bytes) -> None:
        self.answered += 1
        if time.monotonic() < self._end_s:
            self._frames.call(self._message)
        else:
            self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        if self.done.done() or self._transport is None:
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def raw_closed_loop(target: str, method: str, message: bytes, *, connections: int, seconds: float) -> int:
    """Keeps one call under way on each of so many connections for so long.

    Args:
        target: The server, as `host:port`.
        method: The method's path.
        message: The request, serialized.
        connections: How many.
        seconds: How long.

    Returns:
        How many calls were answered with a message.

    Raises:
        ConnectionError: One was not.
    """
    loop, end_s = asyncio.get_running_loop(), time.monotonic() + seconds
    host, port = target.rsplit(":", 1)
    opened: list[RawCalls] = []
    for _ in range(connections):
        _, calls = await loop.create_connection(lambda: RawCalls(target, method, message, end_s), host, int(port))
        opened.append(calls)
    await asyncio.gather(*(calls.done for calls in opened))
    return sum(calls.answered for calls in opened)
