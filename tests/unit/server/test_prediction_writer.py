"""The writer as a process: when it works, who starts it, what becomes of it."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import structlog

from server.predictions.blocks import pack_rows, pack_version
from server.predictions.leisure import LEAST_NICE, Leisure
from server.predictions.orders import Orders
from server.predictions.spool import SERVERS, WRITER, Segment, is_locked, new_origin, segments, sharing
from server.predictions.writer import POLL_S, run
from server.predictions.writer_process import WriterProcess
from tests.unit.server.prediction_factory import LANE, entry, group

WITHIN_S = 30


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.01)  # other processes are what we wait for


# ---- when it works ----


def test_leisure_is_a_thread_of_the_lowest_priority() -> None:
    leisure, ordinary = Leisure(), os.sched_getscheduler(0)
    scheduled: list[int] = []

    def work() -> bool:
        scheduled.append(os.sched_getscheduler(0))
        return True

    assert leisure.do(work)
    assert not leisure.do(lambda: False)
    leisure.close()
    assert scheduled == [os.SCHED_IDLE] != [ordinary]
    assert os.sched_getscheduler(0) == ordinary, "what is due has the ordinary priority"


def test_where_that_is_not_allowed_it_is_as_low_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    leisure, ordinary = Leisure(), os.getpriority(os.PRIO_PROCESS, 0)
    assert leisure.do(lambda: os.getpriority(os.PRIO_PROCESS, 0) == LEAST_NICE)
    leisure.close()
    assert os.getpriority(os.PRIO_PROCESS, 0) == ordinary


@pytest.fixture
def asleep_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the writer has slept; nobody waits for it."""
    asleep_s: list[float] = []
    monkeypatch.setattr("server.predictions.writer.time.sleep", asleep_s.append)
    return asleep_s


@pytest.mark.parametrize("is_due", [True, False])
def test_what_is_not_due_is_done_at_leisure(asleep_s: list[float], *, is_due: bool) -> None:
    steps, at_leisure = [], []

    def step() -> bool:
        steps.append(1)
        return len(steps) not in (2, 5)

    def do(work: Callable[[], bool]) -> bool:
        at_leisure.append(1)
        return work()

    run(step, lambda: is_due, lambda: len(steps) < 3, do)
    assert len(steps) == 5, "three while it is in use, then the rest"
    assert len(at_leisure) == (0 if is_due else 3)
    assert asleep_s == [POLL_S]


def test_a_fault_is_told_and_does_not_end_it(asleep_s: list[float]) -> None:
    steps: list[int] = []

    def step() -> bool:
        steps.append(1)
        if len(steps) == 1:
            raise ValueError("a fault")
        return False

    with structlog.testing.capture_logs() as events:
        run(step, lambda: True, lambda: len(steps) < 2, lambda work: work())
    assert [event["event"] for event in events] == ["the prediction log's writer stumbled"]
    assert len(steps) == 3


# ---- who starts it, and what becomes of it ----


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "spool"
    folder.mkdir()
    yield folder
    wait_until(lambda: not is_locked(folder / WRITER), "the writer has ended")


def orders(folder: Path) -> Orders:
    return Orders(
        f"sqlite:///{folder.parent / 'log.db'}", str(folder), 0, 1 << 30, "info", "json", tuple(os.sched_getaffinity(0))
    )


@pytest.mark.slow  # starts processes
def test_a_killed_writer_is_replaced_and_no_row_is_lost_or_there_twice(spool: Path) -> None:
    with ExitStack() as in_use:
        in_use.enter_context(sharing(spool / SERVERS))
        workers = [WriterProcess(orders(spool)) for _ in range(2)]
        segment = Segment(spool, f"{new_origin()}.000001")
        segment.append(pack_version(LANE, 0), 0)
        first = 0
        for life in range(2):
            wait_until(lambda: not is_locked(spool / WRITER), "a killed one has let go")
            for worker in workers:
                worker.ensure()
            running = [worker._process for worker in workers if worker._process is not None]
            assert len(running) == 1, "one of them starts it, the other finds the lock taken"
            running[0].send_signal(signal.SIGTERM)  # not even in its first moments
            names = [f"{life}-{number}" for number in range(500)]
            segment.append(pack_rows(group(*[entry(b"x", name=name) for name in names]), 0, first), 500)
            first += 500
            wait_until(lambda: segment.progress().written_rows > 0, "it writes")
            if life == 0:
                running[0].kill()
                running[0].wait()
        wait_until(lambda: segment.progress().done_bytes == segment.size, "all is written")
        for ignored in (signal.SIGTERM, signal.SIGINT):
            running[0].send_signal(ignored)
        segment.append(pack_rows(group(entry(b"x", name="last")), 0, first), 1)
        wait_until(lambda: segment.progress().done_bytes == segment.size, "it goes on")
        assert running[0].poll() is None, "what stops a server does not stop it"
        segment.close()
        wait_until(lambda: segments(spool) == [], "the file is deleted")
    for worker in workers:
        worker.close()
    wait_until(lambda: not is_locked(spool / WRITER), "it ends by itself")
    running[0].wait()
    with closing(sqlite3.connect(spool.parent / "log.db")) as database:
        names = [name for (name,) in database.execute("SELECT request_id FROM predictions")]
    expected = [f"{life}-{number}" for life in range(2) for number in range(500)]
    assert sorted(names) == sorted([*expected, "last"])


def test_a_writer_that_dies_at_once_is_not_started_again_and_again(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.predictions.writer_process.MODULE", "server.predictions.no_such_module")
    now_s = [0.0]
    started: list[float] = []
    worker = WriterProcess(orders(spool), clock=lambda: now_s[0])
    start = worker._start

    def note_start(descriptor: int) -> None:
        started.append(now_s[0])
        start(descriptor)

    monkeypatch.setattr(worker, "_start", note_start)
    with structlog.testing.capture_logs() as events:
        for _ in range(200):
            worker.ensure()
            if worker._process is not None:
                worker._process.wait()
            now_s[0] += 0.1
    assert started == pytest.approx([0, 0.1, 1.2, 3.3, 8.4, 18.5], abs=0.3)
    assert {(event["event"], event["code"]) for event in events} == {("the prediction log's writer ended", 1)}
    worker.close()
