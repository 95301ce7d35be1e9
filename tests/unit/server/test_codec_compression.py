import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput, PayloadTooLarge, UnsupportedEncoding
from server.transports.codecs.compression import CODINGS, MAX_MEMBERS, decompress, read_codings

LIMIT = 100_000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


def compress(body: bytes, *codings: str) -> bytes:
    for coding in codings:
        body = COMPRESS[coding](body)
    return body


@given(st.binary(max_size=2000), st.lists(st.sampled_from(CODINGS), max_size=3))
def test_what_was_compressed_comes_back(body: bytes, codings: list[str]) -> None:
    assert decompress(compress(body, *codings), read_codings(", ".join(codings)), LIMIT) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_of_many_pieces_comes_back(coding: str) -> None:
    body = bytes(range(256)) * 2000 + zlib.compress(bytes(range(256)) * 50)
    assert decompress(compress(body, coding), [coding], len(body)) == body


def test_deflate_without_its_wrapping_is_understood() -> None:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert decompress(encoder.compress(b"picture" * 9) + encoder.flush(), ["deflate"], LIMIT) == b"picture" * 9


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_strung_together_members_are_one_body(coding: str) -> None:
    assert decompress(compress(b"one ", coding) + compress(b"two", coding), [coding], LIMIT) == b"one two"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_without_end_are_refused(coding: str) -> None:
    with pytest.raises(PayloadTooLarge, match="1,000 parts"):
        decompress(compress(b"", coding) * (MAX_MEMBERS + 1), [coding], LIMIT)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_is_exact(coding: str) -> None:
    assert len(decompress(compress(bytes(LIMIT), coding), [coding], LIMIT)) == LIMIT
    with pytest.raises(PayloadTooLarge, match="at most 100,000 bytes"):
        decompress(compress(bytes(LIMIT + 1), coding), [coding], LIMIT)


@pytest.mark.parametrize("codings", [*itertools.product(CODINGS), *itertools.product(CODINGS, CODINGS)])
def test_a_bomb_is_refused_without_being_inflated(codings: tuple[str, ...]) -> None:
    bomb = compress(bytes(10_000_000), *codings)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, codings, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_that_asks_for_a_huge_window_is_refused() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    encoder = zstd.ZstdCompressor(options=options)
    frame = encoder.compress(b"small") + encoder.flush()
    with pytest.raises(InvalidInput, match="zstd"):
        decompress(frame, ["zstd"], LIMIT)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_cut_anywhere_is_refused(coding: str) -> None:
    whole = compress(bytes(range(200)), coding)
    for end in range(1, len(whole)):
        with pytest.raises(InvalidInput, match=coding):
            decompress(whole[:end], [coding], LIMIT)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_something_else_or_has_something_behind_it_is_refused(coding: str) -> None:
    for body in (b"not compressed at all", compress(b"picture", coding) + b"and more"):
        with pytest.raises(InvalidInput, match="cannot be decompressed"):
            decompress(body, [coding], LIMIT)


def test_no_body_at_all_stays_none() -> None:
    assert decompress(b"", CODINGS, LIMIT) == b""


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("gzip", ("gzip",)),
        ("GZip , ZSTD", ("gzip", "zstd")),
        ("x-gzip", ("gzip",)),
        ("identity", ()),
        ("", ()),
        ("gzip,gzip,gzip", ("gzip",) * 3),
    ],
)
def test_a_header_names_codings_in_their_order(header: str, codings: tuple[str, ...]) -> None:
    assert read_codings(header) == codings


@pytest.mark.parametrize("header", ["br", "gzip, br", "compress", "gzip;q=1", "gzip,gzip,gzip,gzip", "\xff"])
def test_unknown_codings_and_too_many_are_refused(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate, zstd"):
        read_codings(header)
