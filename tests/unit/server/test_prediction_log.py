"""The queue of answers and the worker's end of the log behind it: bounds, drops, what a stop hands over."""

import asyncio
import errno
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from server.predictions import log as log_module
from server.predictions.answers import Answered, Lane, lane_of
from server.predictions.blocks import Group, pack_rows, pack_version, unpack, unpack_rows
from server.predictions.log import FULL, LogStatistics, PredictionLog
from server.predictions.observer import SAMPLED, SAMPLED_PIXELS, Observer
from server.predictions.recorder import Recorder
from server.predictions.spool import HURRY, SERVERS, Segment, is_locked, new_origin, segments
from server.predictions.storage import Batch, StorageRefused, Version
from server.tensors import InferRequest
from tests.unit.server.prediction_factory import GREY, LANE, Clock, FakeStorage, FakeWriter, entry, group, model


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def writer() -> FakeWriter:
    return FakeWriter()


def make_log(folder: Path, writer: FakeWriter, clock: Clock, **options: Any) -> PredictionLog:
    return PredictionLog(folder, writer, clock=clock, sleep=clock.sleep, **options)


def drain(folder: Path, storage: FakeStorage, clock: Clock) -> None:
    recorder = Recorder(folder, storage, clock=clock)
    while recorder.step():
        pass
    recorder.close()


# ---- the worker's end of the log ----


def test_rows_go_through_the_spool_with_their_version(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock
) -> None:
    log = make_log(tmp_path, writer, clock)
    log.keep(LANE, group(entry(b"x", name="1"), entry(b"y", b"z", name="2")))
    assert log.statistics().pending == 3
    log.flush()
    log.keep(LANE, group(entry(b"x", name="3")))
    log.flush()
    assert log.statistics() == LogStatistics(written=0, dropped=0, pending=4)
    drain(tmp_path, storage, clock)
    assert [(row[2], row[3]) for row in storage.rows] == [("1", 0), ("2", 0), ("2", 1), ("3", 0)]
    versions = [version for batch in storage.batches for version in batch.versions.items()]
    assert versions == [(("grey", 7), Version(("dark", "dim", "bright"), "int8", 0.9))]
    assert log.statistics() == LogStatistics(written=4, dropped=0, pending=0)


def test_a_full_file_is_followed_by_another_that_names_its_versions_again(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SEGMENT_BYTES", 1000)
    log = make_log(tmp_path, writer, clock)
    for number in range(50):
        log.keep(LANE, group(entry(b"x", name=str(number))))
        log.flush()
    assert len(segments(tmp_path)) > 3
    drain(tmp_path, storage, clock)
    assert [row[2] for row in storage.rows] == [str(number) for number in range(50)]
    assert len(segments(tmp_path)) == 1, "the one that is appended to"
    log.flush()
    assert log.statistics() == LogStatistics(written=50, dropped=0, pending=0)


def test_what_is_over_the_bound_is_dropped_told_and_made_a_gap(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SEGMENT_BYTES", 1000)
    log = make_log(tmp_path, writer, clock, max_bytes=5000)
    with structlog.testing.capture_logs() as events:
        for _ in range(40):
            log.keep(LANE, group(entry(b"x")))
            log.flush()
            clock.now_s += 0.1
    kept = log.statistics().pending
    assert 0 < kept < 40
    assert log.statistics().dropped == 40 - kept
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 5000
    assert [(event["event"], event["reason"]) for event in events] == [("predictions were not logged", FULL)], "once"
    drain(tmp_path, storage, clock)
    log.keep(LANE, group(entry(b"y", name="after")))
    log.flush()
    drain(tmp_path, storage, clock)
    assert [row[2] for row in storage.rows][kept:] == ["after"]
    gaps = [batch.gap for batch in storage.batches if batch.gap is not None]
    assert [(gap.rows, gap.reason) for gap in gaps] == [(40 - kept, FULL)]


def test_a_full_disk_costs_what_it_does_not_hold_and_nothing_else(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, two = make_log(tmp_path, writer, clock), model("other")
    other = lane_of(two)
    log.keep(LANE, group(entry(b"x", name="before")))
    log.flush()
    write = os.pwrite
    written: list[int] = []

    def write_a_little(descriptor: int, content: memoryview, at: int) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(at)
        return write(descriptor, content[:20], at)

    with monkeypatch.context() as patch:
        patch.setattr("server.predictions.spool.os.pwrite", write_a_little)
        size = segments(tmp_path)[0].stat().st_size
        log.keep(other, group(entry(b"x"), entry(b"x")))
        with structlog.testing.capture_logs() as events:
            log.flush()
        assert segments(tmp_path)[0].stat().st_size == size, "what was written of it is taken back"
    assert events[0]["reason"] == "the spool cannot be written: No space left on device"
    log.keep(other, group(entry(b"x", name="after")))
    log.flush()
    drain(tmp_path, storage, clock)
    assert [(row[2], row[6]) for row in storage.rows] == [("before", "grey"), ("after", "other")]
    assert [batch.gap.rows for batch in storage.batches if batch.gap is not None] == [2]
    assert log.statistics() == LogStatistics(written=2, dropped=2, pending=0)


def test_rows_that_the_database_refuses_count_as_dropped(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock
) -> None:
    log = make_log(tmp_path, writer, clock)
    log.keep(LANE, group(entry(b"x")))
    log.flush()
    storage.fails = StorageRefused("value too long")
    drain_until_refused(tmp_path, storage, clock)
    assert log.statistics() == LogStatistics(written=0, dropped=1, pending=0)
    log.finish(0)
    assert log.statistics().dropped == 1


def drain_until_refused(folder: Path, storage: FakeStorage, clock: Clock) -> None:
    write = storage.write

    def refuse_rows(batch: Batch) -> None:
        if batch.rows:
            write(batch)

    storage.write = refuse_rows  # type: ignore[method-assign]
    drain(folder, storage, clock)


def test_a_stop_waits_until_all_is_written_and_leaves_nothing_behind(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock
) -> None:
    log = make_log(tmp_path, writer, clock)
    log.keep(LANE, group(entry(b"x")))
    hurried = []

    def work() -> None:
        hurried.append(is_locked(tmp_path / HURRY))
        if len(hurried) == 10:
            drain(tmp_path, storage, clock)

    writer.work = work
    assert is_locked(tmp_path / SERVERS)
    with structlog.testing.capture_logs() as events:
        log.finish(within_s=4)
    assert hurried == [True] * 10
    assert len(storage.rows) == 1
    assert segments(tmp_path) == []
    assert events == []
    assert (is_locked(tmp_path / SERVERS), is_locked(tmp_path / HURRY), writer.closed) == (False, False, True)


def test_what_a_stop_cannot_wait_for_is_written_at_the_next_start(
    tmp_path: Path, storage: FakeStorage, writer: FakeWriter, clock: Clock
) -> None:
    log = make_log(tmp_path, writer, clock)
    log.keep(LANE, group(entry(b"x", b"y")))
    with structlog.testing.capture_logs() as events:
        log.finish(within_s=4)
    assert 103.9 < clock.now_s < 104.1
    assert [(event["event"], event["rows"]) for event in events] == [
        ("predictions wait in the spool for the next start", 2)
    ]
    assert log.statistics().dropped == 0
    drain(tmp_path, storage, clock)
    assert len(storage.rows) == 2
    assert segments(tmp_path) == []


def test_a_killed_worker_loses_no_more_than_it_had_not_written(
    tmp_path: Path, storage: FakeStorage, clock: Clock
) -> None:
    content = pack_rows(group(entry(b"x")), 0, 0)
    segment = Segment(tmp_path, f"{new_origin()}.000001")
    segment.append(pack_version(LANE, 0) + content, 1)
    segment.append(content[:-1], 1)
    drain(tmp_path, storage, clock)
    assert len(segments(tmp_path)) == 1, "as long as somebody holds it"
    segment.close()  # as the end of a process does
    with structlog.testing.capture_logs() as events:
        drain(tmp_path, storage, clock)
    assert [(event["event"], event["rest_bytes"]) for event in events] == [
        ("the end of a spool's file cannot be read", len(content) - 1)
    ]
    assert len(storage.rows) == 1
    assert segments(tmp_path) == []


# ---- the queue in front of it ----


class FakeKeeper:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.late: list[Answered] = []
        self.lost: list[tuple[int, str]] = []
        self.finished: list[float] = []
        self.fails = False
        self.thread: threading.Thread | None = None

    def keep(self, lane: Lane, group: Group) -> None:
        if self.fails:
            raise RuntimeError("broken")
        assert lane.model == "grey"
        self.thread = threading.current_thread()
        (block,) = unpack(pack_rows(group, 0, 0))
        self.names += unpack_rows(block.payload).ids

    def keep_late(self, lane: Lane, answers: Sequence[Answered]) -> None:
        assert lane.model == "grey"
        self.late += answers

    def lose(self, rows: int, reason: str) -> None:
        self.lost.append((rows, reason))

    def flush(self) -> None:
        pass

    def finish(self, within_s: float) -> None:
        self.finished.append(within_s)


class FakeWatcher:
    def __init__(self) -> None:
        self.samples: list[Answered] = []

    def watch(self, answers: Sequence[Answered]) -> None:
        self.samples += answers


def give(observer: Observer, content: bytes = b"", n: int = 1, name: str = "", **inputs: Any) -> None:
    images = (content,) * n if content else ()
    outputs = {"probabilities": np.zeros((n, 3), np.float32)}
    observer.answered(InferRequest(request_id=name), GREY, images, inputs, outputs, 0.01)


def test_what_was_answered_before_a_close_is_kept_in_order_off_the_loop() -> None:
    keeper = FakeKeeper()

    async def main() -> None:
        observer = Observer(keeper, None)
        observer.start()
        for number in range(1000):
            give(observer, b"x", name=str(number))
        await observer.close(4.0)
        assert observer.waiting_rows == 0

    asyncio.run(main())
    assert [int(name) for name in keeper.names] == list(range(1000))
    assert keeper.finished == [4.0]
    assert keeper.thread is not threading.main_thread()


@pytest.mark.parametrize(("bounds", "size", "n"), [({"max_rows": 4}, 10, 2), ({"max_bytes": 40_000}, 20_000, 1)])
def test_what_is_over_the_bounds_is_dropped_and_counted(bounds: dict[str, Any], size: int, n: int) -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None, **bounds)
    for _ in range(5):
        give(observer, bytes(size), n)
    observer._tick()
    assert len(keeper.names) + len(keeper.late) == 2
    assert keeper.lost == [(3 * n, "more was answered than can be taken in")]
    give(observer, bytes(size), n)  # there is room again
    observer._tick()
    assert len(keeper.names) + len(keeper.late) == 3
    assert len(keeper.lost) == 1


def test_only_what_is_large_or_kept_waits_whole() -> None:
    for keep_inputs, sizes in ((False, [20_000]), (True, [7, 20_000])):
        keeper = FakeKeeper()
        observer = Observer(keeper, None, keep_inputs=keep_inputs)
        give(observer, bytes(7), image=np.zeros((1, 8, 8, 1), np.uint8))
        give(observer, bytes(20_000), image=np.zeros((1, 8, 8, 1), np.uint8))
        observer._tick()
        assert [len(one.images[0]) for one in keeper.late] == sizes
        assert not any(one.inputs for one in keeper.late), "decoded pixels do not wait beside their picture"
        assert observer.waiting_rows == 0


def test_a_fault_costs_its_answers_and_never_the_thread() -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None)
    keeper.fails = True
    give(observer, b"x")
    with structlog.testing.capture_logs() as events:
        observer._tick()
    assert events[0]["log_level"] == "error"
    assert keeper.lost == [(1, "they could not be spelled")]
    assert observer.waiting_rows == 0
    keeper.fails = False
    give(observer, b"y", name="next")
    observer._tick()
    assert keeper.names == ["next"]


@pytest.mark.parametrize(
    ("shape", "answers", "pictures"),
    [
        ((1, 8, 8, 1), SAMPLED, SAMPLED_PIXELS),
        ((1, 64, 64, 3), SAMPLED, SAMPLED_PIXELS),
        ((1, 128, 128, 3), SAMPLED, 3),
        ((1, 224, 224, 3), SAMPLED, 1),
        ((32, 8, 8, 1), 2, 2),
    ],
)
def test_a_watcher_sees_a_bounded_sample_of_each_tick(shape: tuple[int, ...], answers: int, pictures: int) -> None:
    watcher = FakeWatcher()
    observer = Observer(None, watcher)
    observer._refill()
    for tick in range(1, 3):
        for _ in range(100):
            give(observer, b"x", n=shape[0], image=np.zeros(shape, np.uint8))
        observer._tick()
        assert len(watcher.samples) == tick * answers
        assert sum(bool(one.inputs) for one in watcher.samples) == tick * pictures
    assert observer.waiting_rows == 0


def test_a_watcher_that_stumbles_is_not_in_the_logs_way() -> None:
    class Stumbling(FakeWatcher):
        def watch(self, answers: Sequence[Answered]) -> None:
            raise ValueError("all the input array dimensions must match")

    keeper = FakeKeeper()
    observer = Observer(keeper, Stumbling())
    give(observer, b"x")
    with structlog.testing.capture_logs() as events:
        observer._tick()
    assert len(keeper.names) == 1
    assert [event["log_level"] for event in events] == ["error"]


def test_rows_without_a_batch_dimension_are_one() -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None)
    outputs = {"probabilities": np.zeros((1, 3), np.float32)}
    flat = model(batched=False)
    observer.answered(InferRequest(), flat, (), {"x": np.zeros(5)}, outputs, 0.01)
    observer._tick()
    assert keeper.late[0].rows == 1


def test_a_version_that_has_gone_is_not_kept_alive_nor_mistaken_for_another() -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None)
    gone = model()
    observer.answered(InferRequest(), gone, (b"x",), {}, {}, 0.01)
    known = weakref.ref(gone)
    del gone
    assert known() is None
    line = next(iter(observer._lines.values()))
    observer._lines = {id(GREY): line}  # the number of one that has gone is used again
    give(observer, b"x", name="next")
    assert [one.lane.source() for one in observer._lines.values()] == [GREY]
    observer._tick()
    assert keeper.names == ["", "next"], "what it answered is not lost with it"
