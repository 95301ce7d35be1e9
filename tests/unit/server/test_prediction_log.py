"""The queue of answers, and the log behind it: bounds, drops, a database that goes away and comes back."""

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import structlog

from server.predictions.log import BATCH_ROWS, Batch, PredictionLog, StorageAway, StorageRefused
from server.predictions.observer import SAMPLED, SAMPLED_PIXELS, Observer
from server.predictions.records import Answered, digest_of, spell_answers
from server.tensors import InferRequest, TensorSpec
from server.versions import LoadedModel

LABELS = ("dark", "dim", "bright")


def model(name: str = "grey", labels: tuple[str, ...] = LABELS, *, batched: bool = True) -> LoadedModel:
    """As much of a version as the log looks at."""
    variants = (SimpleNamespace(name="int8", accuracy=0.9), SimpleNamespace(name="float32", accuracy=0.0))
    return cast(
        LoadedModel,
        SimpleNamespace(
            name=name,
            version=7,
            variant="int8",
            labels=labels,
            outputs=(TensorSpec("probabilities", "FP32", (-1 if batched else 1, 3)),),
            bundle=SimpleNamespace(variants=variants),
        ),
    )


GREY = model()


def answered(*images: bytes, one: LoadedModel = GREY, name: str = "id", rows: int = 1, **more: Any) -> Answered:
    rows = len(images) or rows
    shares = np.tile(np.array([[0.2, 0.1, 0.7]], np.float32), (rows, 1))
    request = InferRequest(request_id=name, protocol="http", client=more.pop("client", ""))
    fields = {"inputs": {}, "outputs": {"probabilities": shares}} | more
    return Answered(1000.5, request, one, images, latency_s=0.0125, rows=rows, **fields)


class FakeStorage:
    """Keeps batches, unless it is told to fail."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.fails: Exception | None = None
        self.swept: list[int] = []
        self.old_rows = 0
        self.refreshed = 0

    @property
    def rows(self) -> list[Any]:
        return [row for batch in self.batches for row in batch.rows]

    def write(self, batch: Batch) -> None:
        if self.fails is not None:
            raise self.fails
        self.batches.append(batch)

    def sweep(self, before_us: int, limit: int) -> int:
        self.swept.append(before_us)
        deleted = min(limit, self.old_rows)
        self.old_rows -= deleted
        return deleted

    def refresh(self) -> None:
        self.refreshed += 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def make_log(storage: FakeStorage, clock: Clock, **options: Any) -> PredictionLog:
    return PredictionLog(storage, clock=clock, sleep=clock.sleep, **options)


# ---- rows ----


def test_a_row_has_everything_in_the_order_of_the_columns() -> None:
    rows, inputs = spell_answers([answered(b"picture", client="shop")], keep_inputs=False)
    digest = hashlib.sha256(b"picture").hexdigest()
    top = '[["bright",0.7],["dark",0.2],["dim",0.1]]'
    expected = (1_000_500_000, "id", 0, "shop", "http", "grey", 7, "int8", digest, "bright", 0.7, top, 12_500)
    assert rows == [expected]
    assert inputs == {}


def test_answers_of_several_versions_keep_their_own_rows() -> None:
    other = model("other", ())
    answers = [answered(b"a", b"b", name="1"), answered(b"c", one=other, name="2"), answered(b"d", name="3")]
    rows = spell_answers(answers, keep_inputs=False).rows
    told = {(row[1], row[2]): (row[5], row[8], row[9]) for row in rows}
    digest = {text: hashlib.sha256(text.encode()).hexdigest() for text in "abcd"}
    assert told == {
        ("1", 0): ("grey", digest["a"], "bright"),
        ("1", 1): ("grey", digest["b"], "bright"),
        ("2", 0): ("other", digest["c"], "2"),  # a number where there are no names
        ("3", 0): ("grey", digest["d"], "bright"),
    }


def test_what_is_no_classifier_has_no_label() -> None:
    outputs = {"probabilities": np.zeros((1, 2, 2), np.float32)}
    mixed = [answered(b"x", outputs=outputs), answered(b"y")]
    assert [(row[9], row[10], row[11] == "[]") for row in spell_answers(mixed, keep_inputs=False).rows] == [
        ("", None, True),
        ("bright", 0.7, False),
    ]


def test_only_the_best_five_are_written() -> None:
    shares = np.linspace(0, 1, 9, dtype=np.float32)[None]
    row = spell_answers([answered(b"x", outputs={"probabilities": shares})], keep_inputs=False).rows[0]
    assert [name for name, _ in json.loads(row[11])] == ["8", "7", "6", "5", "4"]


def test_rows_of_tensors_are_told_by_their_own_bytes() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    names = np.array([b"ab", b"c"], object)
    rows, inputs = spell_answers([answered(rows=2, inputs={"image": pixels, "name": names})], keep_inputs=True)
    contents = [pixels[0].tobytes() + b"\2\0\0\0ab", pixels[1].tobytes() + b"\1\0\0\0c"]
    assert [row[8] for row in rows] == [hashlib.sha256(one).hexdigest() for one in contents]
    assert [one.content for one in inputs.values()] == contents
    assert {one.form for one in inputs.values()} == {"uint8[3, 4], object[1]"}


@pytest.mark.parametrize(
    ("shares", "top"),
    [
        ([0.0004, 0.9991, 0.0005], [['di"m', 0.9991]]),  # a sure answer has one class to tell
        ([0.001, 0.0, 0.999], [["bright", 0.999], ["dark", 0.001]]),
        ([0.0, 0.0, 0.0], [["dark", 0.0]]),
        ([float("nan")] * 3, [["dark", 0.0]]),
    ],
)
def test_what_is_next_to_nothing_is_left_out(shares: list[float], top: list[list[Any]]) -> None:
    one = model(labels=("dark", 'di"m', "bright"))
    outputs = {"probabilities": np.array([shares], np.float32)}
    row = spell_answers([answered(b"x", one=one, outputs=outputs)], keep_inputs=False).rows[0]
    assert json.loads(row[11]) == top
    assert row[9:11] == tuple(top[0])


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 4094, 4095, 16_384, 16_385])
def test_a_digest_is_sha256_whatever_the_pieces(size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    assert digest_of(content) == digest_of(memoryview(content)) == hashlib.sha256(content).hexdigest()


# ---- the log ----


def test_rows_go_to_the_database_in_batches_with_their_version(storage: FakeStorage, clock: Clock) -> None:
    log = make_log(storage, clock)
    log.keep([answered(*[b"x"] * (BATCH_ROWS + 1))])
    log.flush()
    assert [len(batch.rows) for batch in storage.batches] == [BATCH_ROWS, 1]
    version = storage.batches[0].versions["grey", 7]
    assert (version.labels, version.variant, version.accuracy) == (LABELS, "int8", 0.9)
    assert not storage.batches[1].versions
    assert log.statistics().written == BATCH_ROWS + 1


def test_inputs_are_kept_once_and_only_where_asked_for(storage: FakeStorage, clock: Clock) -> None:
    for keep in (False, True):
        log = make_log(storage, clock, keep_inputs=keep)
        log.keep([answered(b"x"), answered(b"x"), answered(b"y")])
        log.flush()
    assert storage.batches[0].inputs == {}
    assert [one.content for one in storage.batches[1].inputs.values()] == [b"x", b"y"]


def test_a_database_that_is_away_is_tried_again_later_and_the_gap_is_told(storage: FakeStorage, clock: Clock) -> None:
    log = make_log(storage, clock, max_pending_rows=3)
    storage.fails = StorageAway("connection refused")
    with structlog.testing.capture_logs() as events:
        tries = 0
        for _ in range(40):
            log.keep([answered(b"x")])
            before = storage.fails
            log.flush()
            tries += before is storage.fails
            clock.now_s += 0.1
        assert log.statistics().dropped == 37
        storage.fails = None
        clock.now_s += 5
        log.flush()
    assert len(storage.rows) == log.statistics().written == 3
    gap = next(batch.gap for batch in storage.batches if batch.gap is not None)
    assert (gap.rows, gap.reason) == (37, "the database does not take them fast enough")
    told = [event for event in events if event["event"] == "predictions were not logged"]
    assert len(told) == 1, "once per interval"
    assert [event["event"] for event in events].count("the prediction log's database is away") == 1
    back = next(event for event in events if event["event"] == "the prediction log's database is back")
    assert back["lost_rows"] == 37


def test_tries_are_farther_and_farther_apart(storage: FakeStorage, clock: Clock) -> None:
    at_s: list[float] = []

    class Away(FakeStorage):
        def write(self, batch: Batch) -> None:
            at_s.append(clock.now_s)
            raise StorageAway("away")

    log = make_log(Away(), clock)
    log.keep([answered(b"x")])
    for _ in range(2000):
        log.flush()
        clock.now_s += 0.01
    waits = np.diff(at_s).round(2).tolist()
    assert waits[:6] == pytest.approx([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], abs=0.02)
    assert max(waits) <= 5.02


def test_rows_that_the_database_refuses_do_not_stop_the_others(storage: FakeStorage, clock: Clock) -> None:
    log = make_log(storage, clock)
    storage.fails = StorageRefused("value too long")
    log.keep([answered(b"x")])
    log.flush()
    storage.fails = None
    log.keep([answered(b"y", name="next")])
    log.flush()
    assert [row[1] for row in storage.rows] == ["next"]
    assert log.statistics().dropped == 1
    assert any(batch.gap is not None and batch.gap.rows == 1 for batch in storage.batches)


def test_a_stop_waits_for_the_database_and_tells_what_is_lost_in_the_end(storage: FakeStorage, clock: Clock) -> None:
    log = make_log(storage, clock)
    storage.fails = StorageAway("away")
    log.keep([answered(b"x")])
    with structlog.testing.capture_logs() as events:
        log.finish(within_s=4)
    assert 103 < clock.now_s <= 104
    assert log.statistics().dropped == 1
    assert events[-1] == {
        "event": "predictions were not logged",
        "rows": 1,
        "reason": "the database was away at the stop",
        "log_level": "warning",
    }


def test_a_database_that_comes_back_during_the_stop_gets_everything(clock: Clock) -> None:
    class Restarting(FakeStorage):
        def write(self, batch: Batch) -> None:
            if clock.now_s < 102:
                raise StorageAway("the database system is starting up")
            super().write(batch)

    storage = Restarting()
    log = make_log(storage, clock)
    log.keep([answered(b"x")])
    log.finish(within_s=4)
    assert (len(storage.rows), log.statistics().dropped) == (1, 0)


def test_old_rows_go_in_small_batches_and_not_all_the_time(storage: FakeStorage, clock: Clock) -> None:
    log = make_log(storage, clock, retention_days=2)
    storage.old_rows = 2500
    for _ in range(10):
        log.flush()
    assert len(storage.swept) == 3
    assert abs(storage.swept[0] / 1e6 - (time.time() - 2 * 86_400)) < 60
    clock.now_s += 61
    log.flush()
    assert len(storage.swept) == 4


def test_nothing_is_deleted_where_everything_is_to_be_kept(storage: FakeStorage, clock: Clock) -> None:
    make_log(storage, clock, retention_days=0).flush()
    assert storage.swept == []


# ---- the queue in front of it ----


class FakeKeeper:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.answers: list[Answered] = []
        self.lost: list[tuple[int, str]] = []
        self.finished: list[float] = []
        self.fails = False
        self.thread: threading.Thread | None = None

    def keep(self, answers: Sequence[Answered]) -> None:
        if self.fails:
            raise RuntimeError("broken")
        self.thread = threading.current_thread()
        self.answers += answers

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


def give(observer: Observer, content: bytes = b"", n: int = 1, **inputs: Any) -> None:
    images = (content,) * n if content else ()
    outputs = {"probabilities": np.zeros((n, 3), np.float32)}
    observer.answered(InferRequest(), GREY, images, inputs, outputs, 0.01)


def test_what_was_answered_before_a_close_is_kept_in_order_off_the_loop() -> None:
    keeper = FakeKeeper()

    async def main() -> None:
        observer = Observer(keeper, None)
        observer.start()
        for number in range(1000):
            give(observer, b"%d" % number)
        await observer.close(4.0)
        assert observer.waiting_rows == 0

    asyncio.run(main())
    assert [int(one.images[0]) for one in keeper.answers] == list(range(1000))
    assert keeper.finished == [4.0]
    assert keeper.thread is not threading.main_thread()


@pytest.mark.parametrize(("bounds", "n"), [({"max_rows": 4}, 2), ({"max_bytes": 20}, 1)])
def test_what_is_over_the_bounds_is_dropped_and_counted(bounds: dict[str, int], n: int) -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None, **bounds)
    for _ in range(5):
        give(observer, b"0123456789", n)
    observer._tick()
    assert len(keeper.answers) == 2
    assert keeper.lost == [(3 * n, "more was answered than can be taken in")]
    give(observer, b"0123456789", n)  # there is room again
    observer._tick()
    assert len(keeper.answers) == 3
    assert len(keeper.lost) == 1


def test_decoded_pixels_do_not_wait_beside_their_picture() -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None)
    give(observer, b"picture", image=np.zeros((1, 8, 8, 1), np.uint8))
    give(observer, image=np.zeros((1, 8, 8, 1), np.uint8))
    observer._tick()
    assert [len(one.inputs) for one in keeper.answers] == [0, 1]


def test_a_fault_costs_its_answers_and_never_the_thread() -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None)
    keeper.fails = True
    give(observer, b"x")
    with structlog.testing.capture_logs() as events:
        observer._guard(observer._tick)
    assert events[0]["log_level"] == "error"
    assert keeper.lost == [(1, "they could not be spelled")]
    assert observer.waiting_rows == 0
    keeper.fails = False
    give(observer, b"y")
    observer._guard(observer._tick)
    assert [one.images for one in keeper.answers] == [(b"y",)]


def test_a_watcher_sees_a_bounded_sample_of_each_tick() -> None:
    watcher = FakeWatcher()
    observer = Observer(None, watcher)
    observer._refill()
    for tick in range(1, 3):
        for _ in range(100):
            give(observer, b"x", image=np.zeros((1, 8, 8, 1), np.uint8))
        observer._tick()
        assert len(watcher.samples) == tick * SAMPLED
        assert sum(bool(one.inputs) for one in watcher.samples) == tick * SAMPLED_PIXELS
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
    assert [one.images for one in keeper.answers] == [(b"x",)]
    assert [event["log_level"] for event in events] == ["error"]


def test_rows_without_a_batch_dimension_are_one() -> None:
    keeper = FakeKeeper()
    observer = Observer(keeper, None)
    outputs = {"probabilities": np.zeros((1, 3), np.float32)}
    observer.answered(InferRequest(), model(batched=False), (), {"x": np.zeros(5)}, outputs, 0.01)
    observer._tick()
    assert keeper.answers[0].rows == 1
