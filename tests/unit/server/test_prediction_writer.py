"""The writer as a process: when it works, who starts it, what becomes of it."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import structlog

from server.predictions.blocks import pack_rows, pack_version
from server.predictions.orders import Orders
from server.predictions.spool import SERVERS, WRITER, Segment, is_locked, new_origin, segments, sharing
from server.predictions.writer import run
from server.predictions.writer_process import WriterProcess
from tests.unit.server.prediction_factory import LANE, entry

ROOT = Path(__file__).parents[3]
WITHIN_S = 30


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.01)  # other processes are what we wait for


# ---- when it works ----


# In a process of its own: to fork one that has threads, as a test runner may, is asking for trouble.
ASKING = """
import os, signal
from server.predictions.leisure import Leisure

leisure = Leisure()
child = leisure._child
print(leisure.wait(30.0), leisure.wait(30.0))
print(os.sched_getscheduler(child) == os.SCHED_IDLE, len(os.listdir(f"/proc/{child}/fd")))
os.kill(child, signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
print([leisure.wait(0.0) for _ in range(3)])
os.kill(child, signal.SIGCONT)
print(leisure.wait(30.0), leisure.wait(30.0))
leisure.close()
print(os.path.exists(f"/proc/{child}"))

leisure = Leisure()
os.kill(leisure._child, signal.SIGKILL)
try:
    while leisure.wait(30.0):
        pass
except BrokenPipeError:
    print("ended")
"""


@pytest.mark.slow  # starts a process
def test_a_child_of_the_lowest_priority_tells_of_spare_time() -> None:
    ended = subprocess.run([sys.executable, "-c", ASKING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "True True",
        "True 2",  # it has its two pipes open, and above all no lock
        "[False, False, False]",
        "True True",  # it was asked once meanwhile, not three times
        "False",
        "ended",  # and with it the writer, of which a worker starts another
    ]


class FakeLeisure:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.has_time = True
        self.asked = 0

    def wait(self, within_s: float) -> bool:
        self.asked += 1
        return self.has_time


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The writer's clock, which its sleeps and looks move on."""
    now_s = [0.0]

    def monotonic() -> float:
        now_s[0] += 0.1
        return now_s[0]

    monkeypatch.setattr("server.predictions.writer.time.monotonic", monotonic)
    monkeypatch.setattr("server.predictions.writer.time.sleep", lambda seconds: None)
    return now_s


@pytest.mark.parametrize(("is_due", "has_time", "asked"), [(False, True, 3), (True, False, 0), (False, False, 30)])
def test_it_waits_for_spare_time_unless_it_is_due_and_never_for_long(
    now_s: list[float], *, is_due: bool, has_time: bool, asked: int
) -> None:
    leisure, steps = FakeLeisure(), []
    leisure.has_time = has_time

    def step() -> bool:
        steps.append(1)
        return len(steps) < 5

    run(step, lambda: is_due, lambda: len(steps) < 3, leisure.wait)
    assert len(steps) == 5, "three while it is in use, then the rest"
    assert asked * 0.5 <= leisure.asked <= asked * 1.2


def test_a_fault_is_told_and_does_not_end_it(now_s: list[float]) -> None:
    steps: list[int] = []

    def step() -> bool:
        steps.append(1)
        if len(steps) == 1:
            raise ValueError("a fault")
        return False

    with structlog.testing.capture_logs() as events:
        run(step, lambda: True, lambda: len(steps) < 2, FakeLeisure().wait)
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
    return Orders(f"sqlite:///{folder.parent / 'log.db'}", str(folder), 0, 1 << 30, "info", "json")


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
            names = [f"{life}-{number}" for number in range(500)]
            segment.append(b"".join(pack_rows([entry(b"x", name=name) for name in names], 0, first)), 500)
            first += 500
            wait_until(lambda: segment.progress().written_rows > 0, "it writes")
            if life == 0:
                running[0].kill()
                running[0].wait()
        wait_until(lambda: segment.progress().done_bytes == segment.size, "all is written")
        for ignored in (signal.SIGTERM, signal.SIGINT):
            running[0].send_signal(ignored)
        segment.append(b"".join(pack_rows([entry(b"x", name="last")], 0, first)), 1)
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
