import asyncio
import contextvars
import gc
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from server.batcher import ALARM_STEP_S, Batcher, BatcherOptions, BatchResult
from server.deadline import Deadline
from server.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    InvalidInput,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
)
from server.tensors import Array, TensorSpec
from tests import virtual_time
from tests.batcher_scenarios import MS, ROW_WIDTH, FakeEngine, rows_of
from tests.virtual_time import now_s

Answer = Callable[[Mapping[str, Array]], Awaitable[Mapping[str, Array]]]
X = TensorSpec("x", "INT64", (-1, ROW_WIDTH))
Y = TensorSpec("y", "INT64", (-1, ROW_WIDTH))


class Engine:
    """An engine whose inputs, outputs and behaviour a test chooses; it notes what it was given."""

    max_batch_rows = 4

    def __init__(
        self,
        answer: Answer | None = None,
        inputs: tuple[TensorSpec, ...] = (X,),
        outputs: tuple[TensorSpec, ...] = (Y,),
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.answer = answer or self._echo
        self.given: list[Mapping[str, Array]] = []
        self.numbers: list[list[int]] = []  # of the rows; what is given is written over by later batches

    def cost_s(self, rows: int) -> float:
        return 0.0

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.given.append(inputs)
        self.numbers.append(inputs["x"].reshape(-1, ROW_WIDTH)[:, 0].tolist() if self.inputs == (X,) else [])
        return await self.answer(inputs)

    async def _echo(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        await asyncio.sleep(1 * MS)
        return {"y": inputs[self.inputs[0].name] + 1} if self.inputs else {"y": np.array(5)}


def make(engine: Any, **options: Any) -> Batcher:
    return Batcher(
        engine,
        BatcherOptions(**{"max_batch_rows": 4, "max_batch_s": 1.0, **options}),
        clock=asyncio.get_running_loop().time,
    )


def submit(batcher: Batcher, first: int = 0, rows: int = 1, **kwargs: Any) -> "asyncio.Task[BatchResult]":
    return asyncio.ensure_future(batcher.submit(rows_of(range(first, first + rows)), **kwargs))


def prepared_rows(batcher: Batcher) -> list[int] | None:
    return batcher._prepared.inputs["x"][:, 0].tolist() if batcher._prepared is not None else None


def is_idle(batcher: Batcher) -> bool:
    return batcher.idle


def run(test: Callable[[], Any]) -> Callable[[], None]:
    """Runs an async test on virtual time."""

    def wrapped() -> None:
        virtual_time.run(test())

    wrapped.__name__ = test.__name__
    return wrapped


@run
async def test_a_lone_request_runs_at_once_on_its_own_array() -> None:
    engine = Engine()
    batcher = make(engine)
    inputs = rows_of(range(3))
    result = await batcher.submit(inputs)
    assert engine.given[0]["x"] is inputs["x"]
    assert (result.queue_s, result.infer_s) == (0.0, 1 * MS)
    np.testing.assert_array_equal(result.outputs["y"], inputs["x"] + 1)


@run
async def test_requests_of_one_moment_share_a_batch_and_a_busy_engine_gathers_the_next() -> None:
    engine = Engine()
    batcher = make(engine)
    results = await asyncio.gather(*(submit(batcher, n) for n in range(6)))
    assert [len(inputs["x"]) for inputs in engine.given] == [4, 2]
    assert {inputs["x"].dtype for inputs in engine.given} == {np.dtype(np.int64)}
    assert [round(result.queue_s / MS, 6) for result in results] == [0, 0, 0, 0, 1, 1]
    assert [round(result.infer_s / MS, 6) for result in results] == [1, 1, 1, 1, 1, 1]
    assert [int(result.outputs["y"][0, 0]) for result in results] == [1, 2, 3, 4, 5, 6]


@run
async def test_batches_are_written_into_two_slabs_and_no_more() -> None:
    engine = Engine()
    batcher = make(engine)
    await asyncio.gather(*(submit(batcher, n) for n in range(40)))
    slabs = {inputs["x"].__array_interface__["data"][0] for inputs in engine.given}
    assert len(engine.given) == 10
    assert len(slabs) == 2
    for one, following in zip(engine.given, engine.given[1:], strict=False):
        assert not np.may_share_memory(one["x"], following["x"])


@run
async def test_the_next_batch_is_prepared_while_one_runs() -> None:
    engine = Engine()
    batcher = make(engine)
    tasks = [submit(batcher, n) for n in range(8)]
    await asyncio.sleep(0.5 * MS)
    prepared = batcher._prepared
    assert prepared is not None
    assert prepared.inputs["x"][:, 0].tolist() == [4, 5, 6, 7]
    assert batcher.statistics().queued_rows == 4
    assert batcher.statistics().running_rows == 4
    await asyncio.gather(*tasks)
    assert engine.given[1] is prepared.inputs
    assert batcher._prepared is None


@run
async def test_a_batch_is_prepared_when_it_fills_up_during_a_run() -> None:
    batcher = make(Engine())
    tasks = [submit(batcher, n) for n in range(7)]
    await asyncio.sleep(0.5 * MS)
    assert prepared_rows(batcher) is None, "three rows make no full batch: more may come"
    tasks.append(submit(batcher, 7))
    await asyncio.sleep(0.1 * MS)
    assert prepared_rows(batcher) == [4, 5, 6, 7]
    await asyncio.gather(*tasks)


@run
async def test_a_cancel_in_the_prepared_batch_changes_it() -> None:
    engine = Engine()
    batcher = make(engine)
    tasks = [submit(batcher, n) for n in range(9)]
    await asyncio.sleep(0.5 * MS)
    assert batcher._prepared is not None
    tasks[5].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert engine.numbers == [[0, 1, 2, 3], [4, 6, 7, 8]]
    assert batcher.statistics().cancelled == 1


@run
async def test_a_more_urgent_request_overtakes_the_prepared_batch() -> None:
    engine = Engine()
    batcher = make(engine)
    tasks = [submit(batcher, n) for n in range(8)]
    await asyncio.sleep(0.5 * MS)
    tasks.append(submit(batcher, 100, priority=-1))
    await asyncio.gather(*tasks)
    assert engine.numbers == [[0, 1, 2, 3], [100, 4, 5, 6], [7]]


@run
async def test_more_rows_than_a_batch_are_split_and_rejoined() -> None:
    await asyncio.sleep(1.0)
    engine = Engine()
    batcher = make(engine)
    small, large, last = submit(batcher, 0), submit(batcher, 10, rows=9), submit(batcher, 30, rows=2)
    result = await large
    assert [len(inputs["x"]) for inputs in engine.given] == [4, 4, 4]
    np.testing.assert_array_equal(result.outputs["y"], rows_of(range(10, 19))["x"] + 1)
    assert result.queue_s == 0.0
    assert result.infer_s == pytest.approx(3 * MS)
    assert (await small).outputs["y"].shape == (1, ROW_WIDTH)
    assert (await last).outputs["y"][:, 0].tolist() == [31, 32]
    assert (await last).queue_s == pytest.approx(2 * MS)


@run
async def test_a_lone_large_request_is_split_without_a_copy() -> None:
    engine = Engine()
    inputs = rows_of(range(10))
    await make(engine).submit(inputs)
    assert [len(given["x"]) for given in engine.given] == [4, 4, 2]
    assert all(given["x"].base is inputs["x"] for given in engine.given)


@run
async def test_outputs_that_lie_in_the_slab_are_copied() -> None:
    async def hand_through(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": inputs["x"]}

    batcher = make(Engine(hand_through))
    first = await asyncio.gather(submit(batcher, 0), submit(batcher, 1))
    await asyncio.gather(submit(batcher, 8), submit(batcher, 9))
    assert [result.outputs["y"][0, 0] for result in first] == [0, 1]


@run
async def test_outputs_with_memory_of_their_own_are_not_copied() -> None:
    answers: list[Array] = []

    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        answers.append(inputs["x"] * 2)
        return {"y": answers[-1]}

    batcher = make(Engine(answer))
    results = await asyncio.gather(submit(batcher, 0), submit(batcher, 1))
    assert all(result.outputs["y"].base is answers[0] for result in results)


@run
async def test_an_output_that_is_not_row_by_row_fails_with_what_to_do() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": np.zeros((1, ROW_WIDTH), np.int64)}

    async def scalar(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": np.array(3)}

    for engine in (Engine(answer), Engine(scalar)):
        batcher = make(engine)
        results = await asyncio.gather(submit(batcher, 0), submit(batcher, 1), return_exceptions=True)
        for result in results:
            assert isinstance(result, InferenceFailed)
            assert str(result).startswith(
                "the model failed on this batch: expected 2 rows in output 'y', received shape ("
            )
            assert str(result).endswith("): this model does not answer row by row; serve it with max_batch_rows 1")
        assert (await submit(batcher, 0)).outputs["y"].size > 0, "alone, a request gets whatever the model answers"


@run
async def test_each_caller_gets_an_error_of_its_own() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise RuntimeError("bad luck")

    batcher = make(Engine(answer))
    errors = await asyncio.gather(submit(batcher, 0), submit(batcher, 1), return_exceptions=True)
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, InferenceFailed)
        assert str(error) == "the model failed on this batch: bad luck"
    assert batcher.statistics().failed == 2
    await asyncio.gather(submit(batcher, 0), submit(batcher, 1), submit(batcher, 2), return_exceptions=True)
    assert batcher.statistics().failed == 5


@run
async def test_an_engines_error_that_is_meant_for_the_caller_goes_unchanged() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ModelNotReady("later")

    batcher = make(Engine(answer))
    with pytest.raises(ModelNotReady, match=r"^later$"):
        await submit(batcher, 0)
    shared = await asyncio.gather(submit(batcher, 0), submit(batcher, 1), return_exceptions=True)
    assert [type(error) for error in shared] == [InferenceFailed] * 2, "of two callers, whom it means is unknown"


@run
async def test_an_error_without_words_is_named() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ZeroDivisionError

    with pytest.raises(InferenceFailed, match="ZeroDivisionError"):
        await submit(make(Engine(answer)), 0)


@run
async def test_a_run_that_is_cancelled_under_the_batcher_fails_its_batch_only() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        await asyncio.sleep(0)
        if inputs["x"][0, 0] == 0:
            raise asyncio.CancelledError
        return {"y": inputs["x"]}

    batcher = make(Engine(answer), max_batch_rows=1)
    broken, fine = submit(batcher, 0), submit(batcher, 1)
    with pytest.raises(InferenceFailed, match="CancelledError"):
        await broken
    assert (await fine).outputs["y"][0, 0] == 1


@run
async def test_when_the_batchers_own_task_is_cancelled_nobody_hangs() -> None:
    batcher = make(Engine(), max_batch_rows=1)
    running, waiting = submit(batcher, 0), submit(batcher, 1)
    await asyncio.sleep(0.5 * MS)
    assert batcher._task is not None
    batcher._task.cancel()
    with pytest.raises(InferenceFailed):
        await running
    with pytest.raises(Draining, match=r"^the server is stopping; send the request again$"):
        await waiting
    assert (await submit(batcher, 2)).outputs["y"][0, 0] == 3, "the next request starts it again"


@run
async def test_a_coroutine_that_is_thrown_away_costs_the_model_nothing() -> None:
    engine = Engine()
    batcher = make(engine)
    first = submit(batcher, 0, rows=4)
    await asyncio.sleep(0.5 * MS)
    thrown = batcher.submit(rows_of(range(1)))
    thrown.send(None)
    assert batcher.statistics().queued_rows == 1
    thrown.close()
    assert batcher.statistics().queued_rows == 0
    await first
    assert len(engine.given) == 1


@run
async def test_a_request_settled_in_the_moment_of_its_cancel_is_counted_once() -> None:
    batcher = make(Engine())
    running = submit(batcher, 0, rows=4)
    late = submit(batcher, 1, deadline=Deadline(0.9 * MS))
    asyncio.get_running_loop().call_at(0.9 * MS + ALARM_STEP_S, late.cancel)
    await asyncio.sleep(0.9 * MS)
    batcher._on_alarm()
    late.cancel()
    await asyncio.wait([late, running])
    assert late.cancelled()
    assert (batcher.statistics().expired, batcher.statistics().cancelled) == (1, 0)
    del late
    gc.collect()  # `virtual_time.run` fails if asyncio logs an exception that was never retrieved


@run
async def test_the_batch_does_not_inherit_its_first_callers_context() -> None:
    request_id = contextvars.ContextVar("request_id", default="none")
    seen = []

    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        seen.append(request_id.get())
        return {"y": inputs["x"]}

    request_id.set("first")
    await make(Engine(answer)).submit(rows_of(range(1)))
    assert seen == ["none"]


# ---- deadlines ----


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


# ---- bounds ----


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


# ---- closing ----


@run
async def test_close_answers_what_was_accepted_and_takes_no_more() -> None:
    batcher = make(Engine())
    tasks = [submit(batcher, n) for n in range(10)]
    await asyncio.sleep(0)
    await asyncio.gather(batcher.close(), batcher.close())
    assert all(task.done() and task.exception() is None for task in tasks)
    with pytest.raises(Draining, match=r"^this model version is being replaced .* again$"):
        await submit(batcher, 0)
    await batcher.close()


# ---- what is predicted ----


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


# ---- models that cannot share batches ----


@run
async def test_a_model_without_a_batch_dimension_runs_requests_one_by_one_in_order() -> None:
    spec = TensorSpec("x", "INT64", (2, ROW_WIDTH))
    engine = Engine(inputs=(spec,), outputs=(Y,))
    batcher = make(engine)
    tasks = [submit(batcher, n, rows=2) for n in range(3)]
    await asyncio.sleep(0.5 * MS)
    assert batcher.statistics().queued_rows == 2, "each request counts as one row"
    assert batcher.predicted_wait_s(1) == pytest.approx(0.25 * MS), "two wait, at no cost; one runs and is late"
    results = await asyncio.gather(*tasks)
    assert [inputs["x"][0, 0] for inputs in engine.given] == [0, 1, 2]
    assert [int(result.outputs["y"][0, 0]) for result in results] == [1, 2, 3]
    with pytest.raises(InvalidInput, match=r"expected shape \[2, 3\]"):
        await submit(batcher, 0, rows=1)


@run
async def test_free_dimensions_run_alone_but_are_still_split_by_rows() -> None:
    spec = TensorSpec("x", "INT64", (-1, -1))
    engine = Engine(inputs=(spec,), outputs=(TensorSpec("y", "INT64", (-1, -1)),))
    batcher = make(engine)
    wide = asyncio.ensure_future(batcher.submit({"x": np.ones((6, 7), np.int64)}))
    narrow = submit(batcher, 5)
    assert (await wide).outputs["y"].shape == (6, 7)
    assert (await narrow).outputs["y"].tolist() == [[6, 6, 6]]
    assert [inputs["x"].shape for inputs in engine.given] == [(4, 7), (2, 7), (1, 3)]


@run
async def test_nothing_is_prepared_of_a_queue_whose_callers_have_all_gone() -> None:
    spec = TensorSpec("x", "INT64", (-1, -1))
    batcher = make(Engine(inputs=(spec,), outputs=(TensorSpec("y", "INT64", (-1, -1)),)))
    running, *gone = (submit(batcher, n, rows=4) for n in range(3))
    await asyncio.sleep(0.1 * MS)
    batcher._prepared = None
    for task in gone:
        task.cancel()
    batcher._prepare()  # before their coroutines have run
    assert prepared_rows(batcher) is None
    await running


@run
async def test_an_output_without_rows_keeps_requests_whole() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"total": inputs["x"].sum(keepdims=True)[0]}

    engine = Engine(answer, outputs=(TensorSpec("total", "INT64", (1,)),))
    result = await make(engine).submit(rows_of(range(10)))
    assert result.outputs["total"].tolist() == [45 * ROW_WIDTH]
    assert len(engine.given) == 1


@run
async def test_strings_stay_alone_and_their_bytes_are_counted() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        await asyncio.sleep(1 * MS)
        return {"y": inputs["s"]}

    engine = Engine(answer, (TensorSpec("s", "BYTES", (-1,)),), (TensorSpec("y", "BYTES", (-1,)),))
    batcher = make(engine, max_queue_bytes=1000)
    words = np.array([b"four", b"seventy"], dtype=object)
    tasks = [asyncio.ensure_future(batcher.submit({"s": words})) for _ in range(3)]
    await asyncio.sleep(0.5 * MS)
    assert batcher.statistics().queued_bytes == 2 * (2 * 8 + 11)
    await asyncio.gather(*tasks)
    assert [len(inputs["s"]) for inputs in engine.given] == [2, 2, 2]
    with pytest.raises(PayloadTooLarge):
        await batcher.submit({"s": np.array([b"x" * 1000], dtype=object)})


@run
async def test_a_model_without_inputs_runs() -> None:
    engine = Engine(inputs=(), outputs=(TensorSpec("y", "INT64", ()),))
    result = await make(engine).submit({})
    assert result.outputs["y"] == 5


@run
async def test_several_inputs_are_stacked_together_and_must_agree_in_rows() -> None:
    async def answer(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": inputs["x"] * inputs["w"][:, None]}

    engine = Engine(answer, (X, TensorSpec("w", "INT64", (-1,))))
    batcher = make(engine)
    requests = [{"x": rows_of(range(n, n + 2))["x"], "w": np.array([10, 100])} for n in range(3)]
    results = await asyncio.gather(*(batcher.submit(inputs) for inputs in requests))
    for inputs, result in zip(requests, results, strict=True):
        np.testing.assert_array_equal(result.outputs["y"], inputs["x"] * inputs["w"][:, None])
    assert [len(given["w"]) for given in engine.given] == [4, 2]
    with pytest.raises(InvalidInput, match="expected 2 rows in 'w' as in the other inputs, received 3"):
        await batcher.submit({"x": requests[0]["x"], "w": np.array([1, 2, 3])})
    with pytest.raises(InvalidInput, match="expected inputs x, w, received x"):
        await batcher.submit({"x": requests[0]["x"]})


def test_nothing_waits_for_ever_on_an_engine_that_is_never_asked() -> None:
    batcher = Batcher(Engine(), BatcherOptions(), clock=lambda: math.nan)
    assert batcher.idle
    assert batcher.statistics().batches == 0
