"""Batches are gathered, split and rejoined; errors and cancels reach the right callers."""

import asyncio
import contextvars
import gc
from collections.abc import Mapping

import numpy as np
import pytest

from server.batcher import ALARM_STEP_S
from server.deadline import Deadline
from server.errors import (
    Draining,
    InferenceFailed,
    ModelNotReady,
)
from server.tensors import Array
from tests.batcher_scenarios import MS, ROW_WIDTH, rows_of
from tests.unit.server.batcher_engine import Engine, make, prepared_rows, run, submit


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
