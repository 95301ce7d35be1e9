"""Unary gRPC calls, one after the other on one connection, as HTTP/2 frames; without a socket.

    preface, SETTINGS ─▶ for each call: HEADERS, DATA as far as the server's windows reach ─▶ DATA, trailers ─▶ next

Only as much of RFC 9113 as a server may ask of a client that sends one message at a time. Header compression is left
out on the way there (every field is a literal), and answers' headers are not read: a call that fails has no message.
"""

import struct
from collections.abc import Callable
from typing import Final

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


_PREFIX_BYTES: Final = 5  # in front of a message: whether it is compressed, and its length


class CallFrames:
    """The client's side of one connection.

    Args:
        authority: The server's address.
        method: The method's path.
        write: Sends bytes to the server.
        ended: Called when a call is answered, with the message.
        timeout_s: How long a call may take, as the server is told; None for as long as it takes.
    """

    def __init__(
        self,
        authority: str,
        method: str,
        write: Callable[[bytes], None],
        ended: Callable[[bytes], None],
        timeout_s: int | None = None,
    ) -> None:
        self._headers = _spell_headers(authority, method, timeout_s)
        self._write = write
        self._ended = ended
        self._stream = -1
        self._left = b""
        self._unread = b""
        self._answer: list[bytes] = []
        self._initial_window = self._connection_window = _DEFAULT_WINDOW
        self._stream_window = 0

    def open(self) -> None:
        """Begins the connection."""
        ours = _frame(_SETTINGS, 0, 0, _SETTING.pack(_INITIAL_WINDOW, _LARGEST_WINDOW))
        window = _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))
        self._write(_PREFACE + ours + window)

    def call(self, message: bytes) -> None:
        """Makes a call; the one before has ended.

        Args:
            message: The request, serialized.
        """
        self._stream += 2
        self._stream_window, self._left = self._initial_window, struct.pack(">BI", 0, len(message)) + message
        self._answer = []
        self._send(_frame(_HEADERS, _END_HEADERS, self._stream, self._headers))

    def receive(self, data: bytes) -> None:
        """Takes what the server sends, frame by frame.

        Args:
            data: As it came.

        Raises:
            ConnectionError: A call failed.
        """
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

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._answer.append(payload)
        elif kind == _WINDOW:
            self._widen(stream, int.from_bytes(payload) & _LARGEST_WINDOW)
        elif kind == _SETTINGS and not flags & _ACK:
            self._agree(payload)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GOAWAY):
            raise ConnectionError(f"the server refused the call: frame {kind}, {payload!r}")
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
        data = b"".join(parts)
        if data:
            self._write(data)

    def _end_call(self) -> None:
        if not self._answer:
            raise ConnectionError("the server answered a call without a message: it failed")
        self._ended(b"".join(self._answer)[_PREFIX_BYTES:])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _spell_headers(authority: str, method: str, timeout_s: int | None) -> bytes:
    """The header block (RFC 7541): two fields of the static table, and literals that no table keeps."""
    indexed = bytes([0x80 | 3, 0x80 | 6])  # :method POST, :scheme http
    literals = {1: authority, 4: method, 31: "application/grpc"}  # by their names' places in the static table
    named = b"".join(_literal_name(place) + _text(value) for place, value in literals.items())
    own = {"te": "trailers"} | ({} if timeout_s is None else {"grpc-timeout": f"{timeout_s}S"})
    return indexed + named + b"".join(b"\x00" + _text(name) + _text(value) for name, value in own.items())


def _literal_name(place: int) -> bytes:
    """A name of the static table, in a prefix of four bits (RFC 7541, 5.1)."""
    return bytes([place]) if place < _SHORT else bytes([_SHORT, place - _SHORT])


def _text(value: str) -> bytes:
    data = value.encode("ascii")
    if len(data) >= _LONG:
        raise ValueError(f"expected less than {_LONG} characters, received {value!r}")
    return bytes([len(data)]) + data
