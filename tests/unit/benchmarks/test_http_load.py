"""What the load generators take for a whole answer: peers end theirs by a length, or in chunks."""

import pytest

from benchmarks.http_load import whole_answer

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("text", [LENGTH, CHUNKS], ids=["length", "chunks"])
def test_an_answer_is_whole_at_its_last_byte_and_no_sooner(text: bytes) -> None:
    assert [whole_answer(text[:end]) for end in range(len(text))] == [None] * len(text)
    assert whole_answer(text) == (200, b"hello", False)


def test_an_answer_without_a_body_ends_with_its_head() -> None:
    assert whole_answer(b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\n") == (503, b"", True)
