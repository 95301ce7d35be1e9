"""Models whose requests cannot share batches: no batch dimension, free dimensions, strings."""

import asyncio
import math
from collections.abc import Mapping

import numpy as np
import pytest

from server.batcher import Batcher, BatcherOptions
from server.errors import (
    InvalidInput,
    PayloadTooLarge,
)
from server.tensors import Array, TensorSpec
from tests.batcher_scenarios import MS, ROW_WIDTH, rows_of
from tests.unit.server.batcher_engine import Engine, X, Y, make, prepared_rows, run, submit


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
