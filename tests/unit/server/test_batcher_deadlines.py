"""Expired requests are told in time, and `max_delay_s` waits no longer than it says."""

import asyncio
from typing import Any

import pytest

from server.batcher import ALARM_STEP_S
from server.deadline import Deadline
from server.errors import (
    DeadlineExceeded,
)
from tests.batcher_scenarios import MS, FakeEngine
from tests.unit.server.batcher_engine import Engine, make, run, submit
from tests.virtual_time import now_s


@run
async def test_an_expired_request_is_told_at_its_deadline_while_the_engine_is_still_busy() -> None:
    engine = FakeEngine(batch_s=10.0)
    batcher = make(engine, max_batch_s=100.0)
    running = submit(batcher, 0, rows=4)
    await asyncio.sleep(1.0)
    assert batcher._alarm is None, "nobody has a deadline"
    with pytest.raises(DeadlineExceeded, match=r"^the deadline passed after 2000 ms in the queue; allow more time$"):
        await submit(batcher, 4, deadline=Deadline(3.0))
    assert now_s() == pytest.approx(3.0)
    assert batcher._alarm is None, "nobody has one any more"
    await running
    assert len(engine.runs) == 1


@run
async def test_one_timer_serves_the_whole_queue() -> None:
    batcher = make(FakeEngine(batch_s=100 * MS))
    loop: Any = asyncio.get_running_loop()
    tasks = [submit(batcher, 0, rows=4)]
    tasks += [submit(batcher, n, deadline=Deadline((30 + n) * MS)) for n in range(10)]
    tasks += [submit(batcher, 50, deadline=Deadline(25 * MS))]
    await asyncio.sleep(0)
    timers = [handle for handle in loop._scheduled if not handle.cancelled() and "_on_alarm" in repr(handle)]
    assert len(timers) == 1
    settled: list[float] = []
    for task in tasks[1:]:
        task.add_done_callback(lambda _: settled.append(round(now_s() / MS, 6)))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert settled == [25, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39]


@run
async def test_a_timer_that_fires_early_does_not_spin() -> None:
    loop: Any = asyncio.get_running_loop()
    batcher = make(FakeEngine(batch_s=100 * MS))
    running = submit(batcher, 0, rows=4)
    late = submit(batcher, 4, deadline=Deadline(20 * MS))
    await asyncio.sleep(20 * MS - 1e-6)
    batcher._on_alarm()  # as a coarse timer would
    assert not late.done()
    assert batcher._alarm is not None
    assert batcher._alarm.when() == pytest.approx(loop.time() + ALARM_STEP_S)
    with pytest.raises(DeadlineExceeded):
        await late
    await running


@run
async def test_a_late_timer_lets_no_expired_row_into_a_batch() -> None:
    engine = Engine()
    batcher = make(engine)
    running = submit(batcher, 0, rows=4)
    late = submit(batcher, 4, deadline=Deadline(1 * MS))  # exactly when the next batch starts
    alive = submit(batcher, 5, deadline=Deadline(1.5 * MS))
    await asyncio.sleep(0)
    assert batcher._alarm is not None
    batcher._alarm.cancel()
    await running
    with pytest.raises(DeadlineExceeded):
        await late
    await alive
    assert engine.numbers == [[0, 1, 2, 3], [5]]


@run
async def test_a_deadline_that_has_passed_is_refused_at_the_door() -> None:
    batcher = make(Engine())
    await asyncio.sleep(1.0)
    with pytest.raises(DeadlineExceeded, match=r"^the deadline had passed before"):
        await submit(batcher, 0, deadline=Deadline(1.0))
    assert batcher.statistics().expired == 1


@run
async def test_no_timer_is_left_when_the_batcher_is_closed() -> None:
    batcher = make(Engine())
    await submit(batcher, 0, deadline=Deadline(3600.0))
    await batcher.close()
    assert batcher._alarm is not None
    assert batcher._alarm.cancelled()


# ---- max_delay_s ----


@run
async def test_with_max_delay_an_idle_engine_waits_for_a_fuller_batch() -> None:
    engine = Engine()
    batcher = make(engine, max_delay_s=5 * MS)
    first = submit(batcher, 0)
    await asyncio.sleep(2 * MS)
    second = submit(batcher, 1)
    await asyncio.gather(first, second)
    assert [len(inputs["x"]) for inputs in engine.given] == [2]
    assert first.result().queue_s == pytest.approx(5 * MS)
    assert second.result().queue_s == pytest.approx(3 * MS)


@run
async def test_a_full_batch_ends_the_delay_at_once() -> None:
    batcher = make(Engine(), max_delay_s=5 * MS)
    first = submit(batcher, 0)
    await asyncio.sleep(2 * MS)
    rest = submit(batcher, 1, rows=3)
    await asyncio.gather(first, rest)
    assert first.result().queue_s == pytest.approx(2 * MS)
    full = await submit(batcher, 9, rows=4)
    assert full.queue_s == 0.0


@run
async def test_close_ends_the_delay() -> None:
    batcher = make(Engine(), max_delay_s=5000 * MS)
    task = submit(batcher, 0)
    await asyncio.sleep(1 * MS)
    await batcher.close()
    assert now_s() == pytest.approx(2 * MS)
    assert task.done()


@run
async def test_the_delay_counts_from_the_oldest_arrival_not_from_the_batch_before() -> None:
    batcher = make(FakeEngine(batch_s=10 * MS), max_delay_s=5 * MS)
    running = submit(batcher, 0, rows=4)
    await asyncio.sleep(3 * MS)
    waiting = submit(batcher, 4)
    await asyncio.gather(running, waiting)
    assert waiting.result().queue_s == pytest.approx(7 * MS)


@run
async def test_a_cancel_before_the_delay_begins_does_not_make_it_endless() -> None:
    batcher = make(Engine(), max_delay_s=5 * MS)
    gone = submit(batcher, 0)
    asyncio.get_running_loop().call_soon(gone.cancel)  # after it is queued, before the batcher's task first runs
    await asyncio.sleep(0)
    late = submit(batcher, 1)
    assert (await late).queue_s <= 5 * MS
    assert gone.cancelled()


@run
async def test_a_request_that_goes_during_the_delay_leaves_no_batch() -> None:
    engine = Engine()
    batcher = make(engine, max_delay_s=5 * MS)
    task = submit(batcher, 0)
    await asyncio.sleep(1 * MS)
    task.cancel()
    await asyncio.wait([task])
    await batcher.close()
    assert engine.given == []
