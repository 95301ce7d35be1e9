"""Batches that run on the event loop itself: which, when, and what the loop does around them."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from server.batcher import Batcher, BatcherOptions
from server.cost_model import CostModel
from server.executor import Executor
from tests.unit.server.test_executor import load_and, save, tensor

ROW = {"x": np.ones((1, 3), np.float32)}


def doubled(folder: Path, width: int | str, kind: int = TensorProto.FLOAT, operator: str = "Add") -> Path:
    """y = x + x, row by row."""
    nodes = [helper.make_node(operator, ["x", "x"][: 1 if operator == "Identity" else 2], ["y"])]
    return save(folder, nodes, [tensor("x", kind, "batch", width)], [tensor("y", kind, "batch", width)])


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    return doubled(tmp_path, 3)


def watched(executor: Executor) -> list[bool]:
    """Makes one row cheap, and notes of each run whether it was on the loop."""
    executor._cost.measure(1, 0.0001)
    session, seen = executor._session, []

    def spy(*arguments: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        return session.run(*arguments)

    executor._session = SimpleNamespace(run=spy, get_providers=session.get_providers)
    return seen


def test_a_batch_that_is_short_runs_on_the_loop_and_any_other_on_the_thread(doubling: Path) -> None:
    async def use(executor: Executor) -> None:
        session, seen = executor._session, []

        def spy(*arguments: Any) -> Any:
            seen.append(threading.current_thread() is threading.main_thread())
            return session.run(*arguments)

        executor._session = SimpleNamespace(run=spy, get_providers=session.get_providers)
        row = {"x": np.ones((1, 3), np.float32)}
        await executor.run(row)  # its cost is not known yet
        for rows in (1, 2):
            executor._cost = CostModel()  # without the slowdown that the run before showed
            executor._cost.measure(1, 0.0009)
            executor._cost.measure(2, 0.0011)
            assert (await executor.run({"x": np.ones((rows, 3), np.float32)}))["y"][0, 0] == 2.0
        assert seen == [False, True, False]

    load_and(doubling, use, inline_s=0.001)


def test_the_session_never_runs_in_two_threads_at_once(doubling: Path) -> None:
    started, goes_on = threading.Event(), threading.Event()

    async def use(executor: Executor) -> None:
        session, seen = executor._session, []

        def spy(*arguments: Any) -> Any:
            on_the_loop = threading.current_thread() is threading.main_thread()
            seen.append(on_the_loop)
            if not on_the_loop:
                started.set()
                assert goes_on.wait(10)
            return session.run(*arguments)

        executor._session = SimpleNamespace(run=spy, get_providers=session.get_providers)
        executor._cost.measure(1, 0.0005)
        executor._cost.measure(2, 0.005)
        given_up = asyncio.ensure_future(executor.run({"x": np.ones((2, 3), np.float32)}))
        await asyncio.to_thread(started.wait, 10)
        given_up.cancel()  # its caller is gone, the thread is still at it
        behind = asyncio.ensure_future(executor.run({"x": np.ones((1, 3), np.float32)}))
        await asyncio.sleep(0)
        goes_on.set()
        assert (await behind)["y"][0, 0] == 2.0
        assert seen == [False, False]

    load_and(doubling, use, inline_s=0.001)


def test_what_the_model_raises_on_the_loop_reaches_the_caller(doubling: Path) -> None:
    async def use(executor: Executor) -> Any:
        executor._cost.measure(1, 0.0001)
        with pytest.raises(Exception, match="Got: 4 Expected: 3"):
            await executor.run({"x": np.ones((1, 4), np.float32)})
        return await executor.run({"x": np.ones((1, 3), np.float32)})

    assert load_and(doubling, use, inline_s=0.001)["y"][0, 0] == 2.0


def test_one_batch_of_all_executors_runs_on_the_loop_in_a_turn_of_it(doubling: Path) -> None:
    async def use(first: Executor) -> list[list[bool]]:
        second = await Executor.load(doubling, first._options)
        seen = [watched(first), watched(second)]
        await asyncio.gather(first.run(ROW), second.run(ROW))
        await second.run(ROW)
        await second.close()
        return seen

    assert load_and(doubling, use, inline_s=0.001) == [[True], [False, True]]


@pytest.mark.parametrize(
    ("width", "kind", "operator", "on_the_loop"),
    [
        (3, TensorProto.FLOAT, "Add", True),
        ("length", TensorProto.FLOAT, "Add", False),
        (3, TensorProto.STRING, "Identity", False),
    ],
)
def test_rows_that_differ_in_cost_never_run_on_the_loop(
    tmp_path: Path, width: int | str, kind: int, operator: str, *, on_the_loop: bool
) -> None:
    async def use(executor: Executor) -> bool:
        executor._cost.measure(1, 0.0001)
        return executor._runs_inline(1)

    assert load_and(doubled(tmp_path, width, kind, operator), use, inline_s=0.001) is on_the_loop


def test_after_a_batch_on_the_loop_its_answers_go_out_before_what_came_meanwhile(doubling: Path) -> None:
    events: list[str] = []

    async def use(executor: Executor) -> None:
        watched(executor)
        batcher, loop = Batcher(executor, BatcherOptions()), asyncio.get_running_loop()
        session = executor._session

        def run(*arguments: Any) -> Any:
            loop.call_soon(lambda: loop.call_soon(events.append, "came meanwhile"))
            return session.run(*arguments)

        executor._session = SimpleNamespace(run=run, get_providers=session.get_providers)
        await batcher.submit(ROW)
        events.append("answered")
        await asyncio.sleep(0.01)
        await batcher.close()

    load_and(doubling, use, inline_s=0.001)
    assert events == ["answered", "came meanwhile"]


def test_the_loop_has_its_turn_between_two_batches_that_run_on_it(doubling: Path) -> None:
    async def use(executor: Executor) -> None:
        seen = watched(executor)
        batcher = Batcher(executor, BatcherOptions(max_batch_rows=1))
        turns: list[int] = []

        async def tick() -> None:
            while True:
                turns.append(len(seen))
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        await asyncio.gather(*(batcher.submit(ROW) for _ in range(4)))
        ticking.cancel()
        assert seen == [True] * 4
        assert {1, 2, 3} <= set(turns)  # it turned while one, two and three of them had run
        await batcher.close()

    load_and(doubling, use, inline_s=0.001)
