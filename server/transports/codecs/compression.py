"""Compressed bodies: what `Content-Encoding` names is undone here, and never beyond the limit of a body's size.

"gzip, zstd": gzip was applied first ──▶ undone in reverse; each step stops one byte past the limit ──▶ the body

A decoder is asked for one byte more than the limit and no more, so a bomb is refused before it is inflated.
"""

import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from server.errors import InvalidInput, PayloadTooLarge, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS: Final = ("gzip", "deflate", "zstd")
ACCEPTED: Final = ", ".join(CODINGS)  # what Accept-Encoding says beside a refusal
MAX_CODINGS: Final = 3  # applied one after the other; each costs a pass over the whole body
MAX_MEMBERS: Final = 1000  # gzip and zstd may be strung together; empty ones would cost time without end
_PIECE_BYTES: Final = 1 << 16  # a decoder copies what lies behind its end, so it gets little at a time
_GZIP_WBITS: Final = 31  # zlib's way to say: the largest window, with gzip's header
_DEFLATE_METHOD: Final = 8  # in the low half of zlib's first byte, RFC 1950
# RFC 9659: 8 MiB is what every client may use and no server has to exceed; the window is allocated whatever is in it.
_ZSTD_WINDOW_LOG: Final = 23


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def read_codings(header: str) -> tuple[str, ...]:
    """Reads `Content-Encoding`.

    Args:
        header: Its value; codings in the order in which they were applied.

    Returns:
        Names out of `CODINGS`, without those that change nothing.

    Raises:
        UnsupportedEncoding: A coding is unknown, or there are more than `MAX_CODINGS`.
    """
    names = [name.strip().lower().removeprefix("x-") for name in header.split(",")]
    codings = tuple(name for name in names if name not in ("", "identity"))
    unknown = next((name for name in codings if name not in CODINGS), None)
    if unknown is not None or len(codings) > MAX_CODINGS:
        raise UnsupportedEncoding(
            f"expected a body compressed with at most {MAX_CODINGS} of {ACCEPTED}, received"
            f" {header[:40]!r}; send it as it is or name another Content-Encoding"
        )
    return codings


def decompress(body: bytes, codings: Sequence[str], limit_bytes: int) -> bytes:
    """Undoes compression.

    Args:
        body: As it came.
        codings: What was applied, first to last.
        limit_bytes: Size of every step's result at most.

    Raises:
        InvalidInput: The body is not what the codings say, or is cut short.
        PayloadTooLarge: A result is over the limit.
    """
    for coding in reversed(codings):
        try:
            body = _undo(body, _decoder_of(coding, body), limit_bytes)
        except (zlib.error, zstd.ZstdError, EOFError) as error:
            raise InvalidInput(
                f"expected a whole body compressed with {coding} by its Content-Encoding, received"
                f" {len(body):,} bytes that cannot be decompressed: {error}"
            ) from None
    return body


def _decoder_of(coding: str, body: bytes) -> Callable[[], _Decoder]:
    if coding == "zstd":
        return lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    if coding == "gzip":
        return lambda: zlib.decompressobj(_GZIP_WBITS)
    # By RFC 9110 deflate has zlib's wrapping. Clients that leave it out are as old as the name.
    wrapped = body[:1] == b"" or body[0] & 0xF == _DEFLATE_METHOD
    return lambda: zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _undo(body: bytes, new: Callable[[], _Decoder], limit_bytes: int) -> bytes:
    decoder, members, parts, room = new(), 1, [], limit_bytes + 1
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        while piece:
            if decoder.eof:
                decoder, members = new(), members + 1
            parts.append(decoder.decompress(piece, room))
            room -= len(parts[-1])
            if room <= 0 or members > MAX_MEMBERS:
                raise PayloadTooLarge(
                    f"expected a body that decompresses to at most {limit_bytes:,} bytes in at most {MAX_MEMBERS:,}"
                    " parts, received more; send fewer or smaller pictures, or raise --max-body-bytes"
                )
            piece = decoder.unused_data if decoder.eof else b""
    if body and not decoder.eof:
        raise EOFError("it ends before its end")
    return b"".join(parts)
