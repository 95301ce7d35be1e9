"""The writer's work: what waits in a spool becomes rows, whatever the database does meanwhile."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import structlog

from server.predictions.backlog import PORTION_ROWS, find_waiting
from server.predictions.blocks import pack_gap, pack_rows, pack_version
from server.predictions.recorder import Recorder
from server.predictions.records import SEQUENCE_BITS
from server.predictions.spool import Segment, new_origin, segments
from server.predictions.storage import Batch, Gap, StorageAway, StorageRefused
from tests.unit.server.prediction_factory import LANE, Clock, FakeStorage, entry, group


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def recorder(tmp_path: Path, storage: FakeStorage, clock: Clock) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path, storage, clock=clock)
    yield recorder
    recorder.close()


class Worker:
    """Fills a spool."""

    def __init__(self, folder: Path) -> None:
        self.origin = new_origin()
        self.segment = Segment(folder, f"{self.origin}.000001")
        self.segment.append(pack_version(LANE, 0), 0)
        self.rows = 0

    def answer(self, *names: str) -> None:
        answers = group(*[entry(b"x", name=name) for name in names])
        self.segment.append(pack_rows(answers, 0, self.rows), len(names))
        self.rows += len(names)


def drain(recorder: Recorder) -> None:
    while recorder.step():
        pass


def test_a_database_that_is_away_is_tried_again_later_and_all_is_written_then(
    tmp_path: Path, recorder: Recorder, storage: FakeStorage, clock: Clock
) -> None:
    worker = Worker(tmp_path)
    worker.answer("1", "2")
    storage.fails = StorageAway("connection refused")
    with structlog.testing.capture_logs() as events:
        for _ in range(40):
            assert not recorder.step()
            clock.now_s += 0.1
        storage.fails = None
        worker.answer("3")
        clock.now_s += 5
        drain(recorder)
    assert [row[2] for row in storage.rows] == ["1", "2", "3"]
    assert [(event["event"], event.get("away_s")) for event in events] == [
        ("the prediction log's database is away", None),
        ("the prediction log's database is back", 9.0),
    ]


def test_tries_are_farther_and_farther_apart(tmp_path: Path, clock: Clock) -> None:
    at_s: list[float] = []

    class Away(FakeStorage):
        def write(self, batch: Batch) -> None:
            at_s.append(clock.now_s)
            raise StorageAway("away")

    recorder = Recorder(tmp_path, Away(), clock=clock)
    Worker(tmp_path).answer("1")
    for _ in range(2000):
        recorder.step()
        clock.now_s += 0.01
    recorder.close()
    waits = [after - before for before, after in pairwise(at_s)]
    assert waits[:6] == pytest.approx([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], abs=0.02)
    assert max(waits) <= 5.02


def test_only_the_rows_that_the_database_refuses_are_lost(tmp_path: Path, clock: Clock) -> None:
    class Picky(FakeStorage):
        def write(self, batch: Batch) -> None:
            if any("bad" in row[2] for row in batch.rows):
                raise StorageRefused("value too long")
            super().write(batch)

    storage, worker = Picky(), Worker(tmp_path)
    names = [f"{number}-bad" if number in (3, 77) else str(number) for number in range(100)]
    worker.answer(*names)
    recorder = Recorder(tmp_path, storage, clock=clock)
    drain(recorder)
    recorder.close()
    assert [row[2] for row in storage.rows] == [name for name in names if "bad" not in name]
    gaps = [batch.gap for batch in storage.batches if batch.gap is not None]
    assert [(gap.rows, gap.reason) for gap in gaps] == [(2, "the database refused them")]
    assert worker.segment.progress()[1:] == (98, 2)
    assert len([batch for batch in storage.batches if batch.versions]) == 1


def test_a_successor_goes_on_where_the_one_before_was_killed(tmp_path: Path, clock: Clock) -> None:
    class Dying(FakeStorage):
        """Takes the rows, and the writer never hears of it."""

        def write(self, batch: Batch) -> None:
            super().write(batch)
            if batch.rows[-1][2] == "3":
                raise KeyboardInterrupt

    storage, worker = Dying(), Worker(tmp_path)
    worker.answer("1")
    first = Recorder(tmp_path, storage, clock=clock)
    assert first.step()
    worker.answer("2", "3")
    with pytest.raises(KeyboardInterrupt):
        first.step()
    first.close()
    worker.answer("4")
    after = FakeStorage()
    after.origins = storage.origins
    second = Recorder(tmp_path, after, clock=clock)
    drain(second)
    second.close()
    assert [row[2] for row in after.rows] == ["2", "3", "4"], "the portion that was not confirmed, with its version"
    again = {row[0]: row[2] for row in storage.rows} | {row[0]: row[2] for row in after.rows}
    assert again == {(1 << SEQUENCE_BITS) + at: str(at + 1) for at in range(4)}, "under the same numbers"


def test_workers_take_turns_and_files_of_one_worker_keep_their_order(
    tmp_path: Path, recorder: Recorder, storage: FakeStorage
) -> None:
    early, late = Worker(tmp_path), Worker(tmp_path)
    for _ in range(2):
        early.answer(*["early"] * PORTION_ROWS)
    early.segment.close()
    early.segment = Segment(tmp_path, f"{early.origin}.000002")
    early.segment.append(pack_version(LANE, 0), 0)
    early.answer("second file")
    late.answer("late")
    assert recorder.step()
    assert recorder.step()
    assert [batch.rows[0][2] for batch in storage.batches] == ["early", "late"]
    drain(recorder)
    assert [row[2] for row in storage.rows if row[2] != "early"] == ["late", "second file"]
    assert len(storage.rows) == 2 * PORTION_ROWS + 2
    assert [path.name for path in segments(tmp_path)] == [f"{early.origin}.000002.rows", f"{late.origin}.000001.rows"]


def test_a_large_request_is_written_in_several_transactions(
    tmp_path: Path, recorder: Recorder, storage: FakeStorage
) -> None:
    worker = Worker(tmp_path)
    answer = group(entry(*[b"x"] * (2 * PORTION_ROWS + 1)))
    worker.segment.append(pack_rows(answer, 0, 0), answer.rows)
    drain(recorder)
    assert [len(batch.rows) for batch in storage.batches] == [PORTION_ROWS, PORTION_ROWS, 1]
    assert worker.segment.progress().written_rows == 2 * PORTION_ROWS + 1


def test_gaps_are_written_one_by_one(tmp_path: Path, recorder: Recorder, storage: FakeStorage) -> None:
    worker = Worker(tmp_path)
    for number in (1, 2):
        worker.segment.append(pack_gap(Gap(1.0, 2.0, number, "full")), 0)
        worker.answer(str(number))
    drain(recorder)
    assert [batch.gap.rows for batch in storage.batches if batch.gap is not None] == [1, 2]
    assert len(storage.rows) == 2


def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path, recorder: Recorder, storage: FakeStorage) -> None:
    other = tmp_path / "0.rows"
    other.write_bytes(b"something else entirely, and long enough")
    Worker(tmp_path).answer("1")
    with structlog.testing.capture_logs() as events:
        drain(recorder)
        drain(recorder)
    assert [event["event"] for event in events] == ["a spool's file is left alone"]
    assert other.exists()
    assert len(storage.rows) == 1


def test_what_waits_is_found_by_its_request_until_it_is_written(
    tmp_path: Path, recorder: Recorder, storage: FakeStorage
) -> None:
    worker = Worker(tmp_path)
    worker.answer("1", "2")
    worker.answer("3")
    found = list(find_waiting(tmp_path, {"2", "nobody"}))
    assert [(origin, rows.ids, told.model) for origin, rows, told in found] == [(worker.origin, ["1", "2"], "grey")]
    drain(recorder)
    assert list(find_waiting(tmp_path, {"2", "3"})) == []


def test_old_rows_go_in_small_batches_and_not_all_the_time(tmp_path: Path, storage: FakeStorage, clock: Clock) -> None:
    recorder = Recorder(tmp_path, storage, retention_days=2, clock=clock)
    storage.old_rows = 2500
    assert [recorder.step() for _ in range(5)] == [True, True, False, False, False]
    assert len(storage.swept) == 3
    assert abs(storage.swept[0] / 1e6 - (time.time() - 2 * 86_400)) < 60
    clock.now_s += 61
    recorder.step()
    assert len(storage.swept) == 4


def test_nothing_is_deleted_where_everything_is_to_be_kept(recorder: Recorder, storage: FakeStorage) -> None:
    recorder.step()
    assert storage.swept == []
