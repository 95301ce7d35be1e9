"""What the load generators take for a whole answer: peers end theirs by a length, or in chunks."""

import asyncio
import os

import pytest

from benchmarks import closed
from benchmarks.http_load import Question, Tally, whole_answer
from benchmarks.payloads import Target

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("text", [LENGTH, CHUNKS], ids=["length", "chunks"])
def test_an_answer_is_whole_at_its_last_byte_and_no_sooner(text: bytes) -> None:
    assert [whole_answer(text[:end]) for end in range(len(text))] == [None] * len(text)
    assert whole_answer(text) == (200, b"hello", False)


def test_an_answer_without_a_body_ends_with_its_head() -> None:
    assert whole_answer(b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\n") == (503, b"", True)


def test_the_rate_of_a_slow_server_is_that_of_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def closed_loop(*_: object, **__: object) -> Tally:
        tally = Tally()
        for number in range(8):  # asked within 7 ms, answered after half a second
            tally.add(number * 0.001, 0.5, 200, right=True)
        return tally

    monkeypatch.setattr(closed, "closed_loop", closed_loop)
    target = Target("", "", os.getpid(), "plain", "")
    taken = asyncio.run(closed.take(target, [Question(b"")], 8, 0.1))
    assert taken.per_s == pytest.approx(8 / 0.507)
