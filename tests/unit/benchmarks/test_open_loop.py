"""The load generator: it keeps its own times, and an alarm that is finer than the event loop's timers."""

import asyncio
import time

import pytest

from benchmarks import poisson
from benchmarks.alarm import Alarm
from benchmarks.http_load import Question, open_loop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASKED = [Question(b"POST / HTTP/1.1\r\n\r\n", b"ok")]


class Answering(asyncio.Protocol):
    """Answers everything at once; `block_s` holds the whole event loop up, the generator with it."""

    def __init__(self, block_s: float = 0.0) -> None:
        self._block_s = block_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        end_s = time.monotonic() + self._block_s
        while time.monotonic() < end_s:
            pass
        self._transport.write(ANSWER)  # type: ignore[attr-defined]


async def ask(block_s: float, *, rate_per_s: float = 500, seconds: float = 0.2) -> dict[str, dict[str, float]]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(block_s), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        tally = await open_loop(url, ASKED, rate_per_s=rate_per_s, seconds=seconds, connections=8, tick_s=1e-4)
    assert len(tally.late_s) == len(tally.took_s)
    return tally.summary()


def test_a_generator_that_was_held_up_is_told_from_a_slow_server() -> None:
    held_up = asyncio.run(ask(0.02))
    assert held_up["late_ms"]["p99"] > 20  # each answer blocks it for 20 ms
    assert held_up["answered_ms"]["p99"] >= held_up["late_ms"]["p50"]  # and that counts for the requests, too


def test_an_alarm_rings_at_its_time_and_at_once_when_that_is_past() -> None:
    async def wait() -> tuple[float, float]:
        with Alarm() as alarm:
            due_s = time.monotonic() + 0.05
            await alarm.wait_until(due_s)
            rang_s = time.monotonic()
            await asyncio.wait_for(alarm.wait_until(rang_s - 1), 5)
            return due_s, rang_s

    due_s, rang_s = asyncio.run(wait())
    assert rang_s >= due_s


@pytest.mark.parametrize("capacity", [90.0, 500.0, 933.0])
def test_bisection_finds_the_highest_rate_that_holds(monkeypatch: pytest.MonkeyPatch, capacity: float) -> None:
    def asked(load: object, rate_per_s: float, bound_ms: float) -> poisson.Probe:
        return poisson.Probe(rate_per_s, 3.0 if rate_per_s <= capacity else float("inf"), 0.1, valid=True)

    monkeypatch.setattr(poisson, "ask", asked)
    probes = poisson.search(poisson.Load("", [], 1, 0), 15, 1000, 9)
    best = max(probe.rate_per_s for probe in probes if probe.holds(15))
    assert capacity - 1000 / 2**9 <= best <= capacity


def test_a_rate_at_which_the_generator_was_late_proves_nothing() -> None:
    assert not poisson.Probe(100, p99_ms=1.0, late_p99_ms=9.0, valid=False).holds(15)
