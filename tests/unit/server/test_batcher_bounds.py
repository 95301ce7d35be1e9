"""What does not fit into the queue is refused at the door, and what was given up leaves nothing behind."""

import asyncio

import numpy as np
import pytest

from server.deadline import Deadline
from server.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
)
from tests.batcher_scenarios import MS, ROW_WIDTH, FakeEngine
from tests.unit.server.batcher_engine import Engine, make, run, submit
from tests.virtual_time import now_s


@run
async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    batcher = make(FakeEngine(batch_s=10 * MS), max_queue_rows=8)
    running = submit(batcher, 0, rows=4)
    await asyncio.sleep(0.1 * MS)
    waiting = submit(batcher, 4, rows=8)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="8 rows wait") as refusal:
        await submit(batcher, 12)
    assert refusal.value.retry_after_s == pytest.approx(9.9 * MS + 2 * 10 * MS)
    assert batcher.statistics().refused == 1
    await asyncio.gather(running, waiting)


@run
async def test_the_queue_is_bounded_in_bytes_too() -> None:
    row_bytes = 8 * ROW_WIDTH
    batcher = make(Engine(), max_queue_bytes=5 * row_bytes)
    tasks = [submit(batcher, 0, rows=4)]
    await asyncio.sleep(0.1 * MS)
    tasks.append(submit(batcher, 4, rows=5))
    await asyncio.sleep(0)
    assert batcher.statistics().queued_bytes == 5 * row_bytes
    with pytest.raises(Overloaded):
        await submit(batcher, 9)
    await asyncio.gather(*tasks)


@run
async def test_what_could_never_fit_is_too_large_not_overload() -> None:
    batcher = make(Engine(), max_queue_rows=8)
    with pytest.raises(PayloadTooLarge, match=r"at most 8 rows .* received 9"):
        await submit(batcher, 0, rows=9)
    batcher = make(Engine(), max_queue_bytes=100)
    with pytest.raises(PayloadTooLarge, match=r"100 bytes .* and 120"):
        await submit(batcher, 0, rows=5)
    assert (await submit(make(Engine(), max_queue_rows=8), 0, rows=8)).outputs["y"].shape == (8, ROW_WIDTH)


@run
async def test_a_request_as_large_as_the_queue_waits_its_turn() -> None:
    row_bytes = 8 * ROW_WIDTH
    for bound in ({"max_queue_rows": 8}, {"max_queue_bytes": 8 * row_bytes}):
        batcher = make(Engine(), **bound)
        tasks = [submit(batcher, 0, rows=4)]
        await asyncio.sleep(0.1 * MS)
        tasks.append(submit(batcher, 4))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await submit(batcher, 10, rows=8)
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, 10, rows=7, deadline=Deadline(now_s()))
        tasks.append(submit(batcher, 10, rows=7))
        await asyncio.gather(*tasks)


@run
async def test_a_request_without_rows_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^expected at least one row"):
        await submit(make(Engine()), 0, rows=0)


@run
async def test_a_wrong_array_is_refused_before_it_meets_others() -> None:
    batcher = make(Engine())
    fine = submit(batcher, 0)
    for wrong in (
        {"x": np.zeros((1, ROW_WIDTH + 1), np.int64)},
        {"x": np.zeros((1, ROW_WIDTH), np.float64)},
        {"x": np.zeros((), np.int64)},
        {"y": np.zeros((1, ROW_WIDTH), np.int64)},
        {"x": np.zeros((1, ROW_WIDTH), np.int64), "more": np.zeros(1)},
        {},
    ):
        with pytest.raises(InvalidInput, match="expected"):
            await batcher.submit(wrong)
    assert (await fine).outputs["y"][0, 0] == 1


@run
async def test_mass_cancellation_leaves_nothing_behind() -> None:
    batcher = make(FakeEngine(batch_s=10 * MS))
    running = submit(batcher, 0, rows=4)
    await asyncio.sleep(0.1 * MS)
    survivors = []
    for wave in range(5):
        tasks = [submit(batcher, n, priority=n % 3) for n in range(100)]
        kept = submit(batcher, 100 + wave)
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert batcher.statistics().queued_rows == wave + 1
        assert sum(map(len, batcher._queue._lanes.values())) < 200
        survivors.append(kept)
    assert batcher.statistics().cancelled == 500
    await batcher.close()
    assert all(task.done() for task in (running, *survivors))
    assert batcher.statistics().rows == 4 + 5
