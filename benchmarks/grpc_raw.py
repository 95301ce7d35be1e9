"""Unary gRPC calls that cost the load generator next to nothing: HTTP/2 frames made beforehand, one call a connection.

grpcio's own client takes 0.9 ms of CPU time for a call with 98 KB in it, as much as ten pictures take the engine. It is
what users have, but on the server's own cores it would be a good part of what is measured.

    preface, SETTINGS ─▶ for each call: HEADERS, DATA as far as the server's windows reach ─▶ DATA, trailers ─▶ next

Only as much of RFC 9113 as a server may ask of a client that sends one message at a time. Header compression is left
out on the way there (every field is a literal), and answers' headers are not read: a call that fails has no message.
"""

import asyncio
import struct
import time
from typing import Final, cast

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW: Final = 4  # a setting
_FRAME_BYTES: Final = 16_384  # what every server takes
_DEFAULT_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = (1 << 31) - 1
_HEAD: Final = struct.Struct(">BHBBI")
_HEAD_BYTES: Final = 9
_SETTING: Final = struct.Struct(">HI")
# Of RFC 7541: what fits into a prefix of four bits, and into one of seven.
_SHORT: Final = 0x0F
_LONG: Final = 0x7F


class RawCalls(asyncio.Protocol):
    """One connection that makes the same call again and again.

    Args:
        authority: The server's address.
        method: The method's path.
        message: The request, serialized.
        end_s: No call begins later, on the monotonic clock.
    """

    def __init__(self, authority: str, method: str, message: bytes, end_s: float) -> None:
        self._headers = _spell_headers(authority, method)
        self._message = struct.pack(">BI", 0, len(message)) + message
        self._end_s = end_s
        self._stream = -1
        self._left = b""
        self._unread = b""
        self._answer_bytes = 0
        self._initial_window = self._connection_window = _DEFAULT_WINDOW
        self._stream_window = 0
        self._transport: asyncio.Transport | None = None
        #: Calls that were answered.
        self.answered = 0
        #: Done, or the reason why not.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the connection and makes the first call."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        ours = _frame(_SETTINGS, 0, 0, _SETTING.pack(_INITIAL_WINDOW, _LARGEST_WINDOW))
        window = _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))
        self._transport.write(_PREFACE + ours + window)
        self._call()

    def data_received(self, data: bytes) -> None:
        """Takes what the server sends, frame by frame."""
        data = self._unread + data
        at = 0
        while len(data) >= at + _HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            end = at + _HEAD_BYTES + (high << 16 | low)
            if len(data) < end:
                break
            self._take(kind, flags, stream, data[at + _HEAD_BYTES : end])
            at = end
        self._unread = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the calls that are left."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._answer_bytes += len(payload)
        elif kind == _WINDOW:
            self._widen(stream, int.from_bytes(payload) & _LARGEST_WINDOW)
        elif kind == _SETTINGS and not flags & _ACK:
            self._agree(payload)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GOAWAY):
            self._finish(ConnectionError(f"the server refused the call: frame {kind}, {payload!r}"))
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._end_call()

    def _agree(self, settings: bytes) -> None:
        for name, value in _SETTING.iter_unpack(settings):
            if name == _INITIAL_WINDOW:
                self._stream_window += value - self._initial_window
                self._initial_window = value
        self._write(_frame(_SETTINGS, _ACK, 0, b""))
        self._send()

    def _widen(self, stream: int, by: int) -> None:
        if stream == 0:
            self._connection_window += by
        elif stream == self._stream:
            self._stream_window += by
        self._send()

    def _call(self) -> None:
        self._stream += 2
        self._stream_window, self._left, self._answer_bytes = self._initial_window, self._message, 0
        self._send(_frame(_HEADERS, _END_HEADERS, self._stream, self._headers))

    def _send(self, frames: bytes = b"") -> None:
        """Sends as much of the message as the server's windows have room for."""
        room = min(self._connection_window, self._stream_window, len(self._left))
        parts = [frames]
        sent = 0
        while sent < room:
            part = self._left[sent : min(sent + _FRAME_BYTES, room)]
            sent += len(part)
            parts.append(_frame(_DATA, _END_STREAM if sent == len(self._left) else 0, self._stream, part))
        self._left = self._left[sent:]
        self._connection_window -= sent
        self._stream_window -= sent
        self._write(b"".join(parts))

    def _end_call(self) -> None:
        if not self._answer_bytes:
            self._finish(ConnectionError("the server answered a call without a message: it failed"))
            return
        self.answered += 1
        if time.monotonic() < self._end_s:
            self._call()
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
        if data and self._transport is not None:
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


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _spell_headers(authority: str, method: str) -> bytes:
    """The header block (RFC 7541): two fields of the static table, and literals that no table keeps."""
    indexed = bytes([0x80 | 3, 0x80 | 6])  # :method POST, :scheme http
    literals = {1: authority, 4: method, 31: "application/grpc"}  # by their names' places in the static table
    named = b"".join(_literal_name(place) + _text(value) for place, value in literals.items())
    return indexed + named + b"\x00" + _text("te") + _text("trailers")


def _literal_name(place: int) -> bytes:
    """A name of the static table, in a prefix of four bits (RFC 7541, 5.1)."""
    return bytes([place]) if place < _SHORT else bytes([_SHORT, place - _SHORT])


def _text(value: str) -> bytes:
    data = value.encode("ascii")
    if len(data) >= _LONG:
        raise ValueError(f"expected less than {_LONG} characters, received {value!r}")
    return bytes([len(data)]) + data
