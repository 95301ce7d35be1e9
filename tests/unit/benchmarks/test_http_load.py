"""What the load generators take for a whole answer: peers end theirs by a length, or in chunks."""

import asyncio
import os
from collections.abc import Callable

import pytest

from benchmarks import closed, limit, peak
from benchmarks.http_load import Question, Tally, whole_answer
from benchmarks.payloads import Target
from benchmarks.server_process import Address

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("text", [LENGTH, CHUNKS], ids=["length", "chunks"])
def test_an_answer_is_whole_at_its_last_byte_and_no_sooner(text: bytes) -> None:
    assert [whole_answer(text[:end]) for end in range(len(text))] == [None] * len(text)
    assert whole_answer(text) == (200, b"hello", False)


def test_an_answer_without_a_body_ends_with_its_head() -> None:
    assert whole_answer(b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\n") == (503, b"", True)


@pytest.fixture
def slow_server(monkeypatch: pytest.MonkeyPatch) -> Tally:
    """A closed loop that was asked within 7 ms and answered after half a second, eight times."""
    tally = Tally()
    for number in range(8):
        tally.add(number * 0.001, 0.5, 200, right=True)

    async def closed_loop(*_: object, **__: object) -> Tally:
        return tally

    monkeypatch.setattr(closed, "closed_loop", closed_loop)
    return tally


def by_take() -> float:
    target = Target("", "", os.getpid(), "plain", "")
    return asyncio.run(closed.take(target, [Question(b"")], 8, 0.1)).per_s


def by_peak() -> float:
    return asyncio.run(peak._take(Address("", "", os.getpid()), [Question(b"")], 8, 0.1))[0]


def by_limit() -> float:
    return asyncio.run(limit._http(Address("", "", os.getpid()), [Question(b"")], 8, 0.1, 32))[0] / 32


@pytest.mark.parametrize("measure", [by_take, by_peak, by_limit])
def test_the_rate_of_a_slow_server_is_that_of_its_answers(slow_server: Tally, measure: Callable[[], float]) -> None:
    assert measure() == pytest.approx(8 / 0.507)
    slow_server.add(0.0, 0.5, 200, right=False)
    with pytest.raises(RuntimeError, match=r"expected right answers only, .* 1 wrong"):
        measure()
