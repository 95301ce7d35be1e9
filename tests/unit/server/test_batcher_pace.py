"""What the batcher predicts of waits, and how large it makes batches for a budget."""

import asyncio
from collections.abc import Mapping

import pytest

from server.tensors import Array, TensorSpec
from tests.batcher_scenarios import MS, FakeEngine
from tests.unit.server.batcher_engine import Engine, is_idle, make, run, submit


@run
async def test_the_wait_is_predicted_from_the_queue_the_running_batch_and_the_cost() -> None:
    batcher = make(FakeEngine(batch_s=10 * MS))
    assert is_idle(batcher)
    assert batcher.predicted_wait_s(1) == 0.0
    assert batcher.predicted_wait_s(4) == 0.0
    assert batcher.predicted_wait_s(5) == pytest.approx(10 * MS), "the fifth row is in the second batch"
    tasks = [submit(batcher, n) for n in range(10)]
    await asyncio.sleep(4 * MS)
    assert not is_idle(batcher)
    # 6 ms are left of the batch that runs; six rows wait.
    assert batcher.predicted_wait_s(2) == pytest.approx(16 * MS)
    assert batcher.predicted_wait_s(3) == pytest.approx(26 * MS)
    assert batcher.predicted_wait_s(2, priority=-1) == pytest.approx(6 * MS), "it would overtake all that wait"
    tasks.append(submit(batcher, 20, rows=4, priority=-1))
    await asyncio.sleep(0)
    assert batcher.predicted_wait_s(1, priority=-1) == pytest.approx(16 * MS)
    assert batcher.predicted_wait_s(1, priority=-2) == pytest.approx(6 * MS)
    assert batcher.predicted_wait_s(1, priority=7) == pytest.approx(26 * MS)
    tasks.append(submit(batcher, 30, rows=40, priority=1))
    await asyncio.sleep(0)
    assert batcher.predicted_wait_s(1) == pytest.approx(26 * MS)
    await asyncio.gather(*tasks)


@run
async def test_the_run_is_predicted_for_a_full_batch_only_where_others_would_fill_it() -> None:
    batcher = make(FakeEngine(batch_s=1 * MS, row_s=2 * MS))
    assert batcher.predicted_run_s(1) == pytest.approx(3 * MS)
    assert batcher.predicted_run_s(99) == pytest.approx(9 * MS)
    task = submit(batcher, 0)
    await asyncio.sleep(0)
    assert batcher.predicted_run_s(1) == pytest.approx(9 * MS)
    await task


@run
async def test_a_batch_that_is_late_is_expected_to_take_half_as_long_again() -> None:
    engine = FakeEngine(batch_s=100 * MS)
    batcher = make(engine)
    task = submit(batcher, 0, rows=4)
    await asyncio.sleep(70 * MS)
    engine.batch_s = 20 * MS
    assert batcher.predicted_wait_s(1) == pytest.approx(25 * MS)
    await task


class SlowerThanItSays(FakeEngine):
    """Says 10 ms and takes 15."""

    def cost_s(self, rows: int) -> float:
        return 10 * MS

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        await asyncio.sleep(15 * MS)
        return {"y": inputs["x"][:, 0], "z": inputs["x"]}


@run
async def test_the_time_between_batches_is_learnt_and_counts() -> None:
    batcher = make(SlowerThanItSays())
    await submit(batcher, 0)
    assert batcher.predicted_wait_s(9) == pytest.approx(20 * MS), "a single batch says nothing about two in a row"
    await asyncio.gather(*(submit(batcher, n) for n in range(12)))
    assert batcher.predicted_wait_s(9) == pytest.approx(30 * MS)


@run
async def test_full_batches_teach_the_pace_with_max_delay_too() -> None:
    batcher = make(SlowerThanItSays(), max_delay_s=5 * MS)
    await asyncio.gather(*(submit(batcher, n) for n in range(12)))
    assert batcher.predicted_wait_s(9) == pytest.approx(30 * MS)


@run
async def test_time_spent_waiting_for_rows_does_not_count_as_pace() -> None:
    batcher = make(SlowerThanItSays(), max_delay_s=100 * MS)
    await asyncio.gather(submit(batcher, 0, rows=4), submit(batcher, 4))
    assert len(batcher.statistics().batch_rows) == 2
    assert batcher.predicted_wait_s(9) == pytest.approx(20 * MS)


@run
async def test_the_wait_of_requests_that_share_no_batch_is_one_batch_for_each() -> None:
    spec = TensorSpec("x", "INT64", (-1, -1))
    engine = FakeEngine(batch_s=10 * MS)
    engine.inputs = (spec,)
    batcher = make(engine)
    tasks = [submit(batcher, n) for n in range(4)]
    await asyncio.sleep(0)
    assert batcher.predicted_wait_s(1) == pytest.approx(40 * MS)
    await asyncio.gather(*tasks)


@run
async def test_batches_are_made_small_enough_for_the_budget() -> None:
    engine = FakeEngine(row_s=10 * MS, batch_s=0.0, max_batch_rows=16)
    batcher = make(engine, max_batch_rows=16, max_batch_s=45 * MS)
    await asyncio.gather(*(submit(batcher, n) for n in range(8)))
    assert [len(run.rows) for run in engine.runs] == [4, 4]
    engine.row_s = 100 * MS  # dearer than the bound even alone: still one row at a time
    await submit(batcher, 0)
    await asyncio.gather(*(submit(batcher, n) for n in range(2)))
    assert [len(run.rows) for run in engine.runs][3:] == [1, 1]
    engine.row_s = 1 * MS
    await submit(batcher, 0)
    await asyncio.gather(*(submit(batcher, n) for n in range(16)))
    assert len(engine.runs[-1].rows) == 16


@run
async def test_a_batch_that_just_fits_the_budget_is_not_halved() -> None:
    engine = FakeEngine(batch_s=40 * MS)
    batcher = make(engine, max_batch_s=40 * MS)
    await submit(batcher, 0, rows=4)
    assert len(engine.runs) == 1


@run
async def test_the_engines_own_bound_holds_as_well() -> None:
    engine = Engine()
    batcher = make(engine, max_batch_rows=100)
    await asyncio.gather(*(submit(batcher, n) for n in range(6)))
    assert [len(inputs["x"]) for inputs in engine.given] == [4, 2]
