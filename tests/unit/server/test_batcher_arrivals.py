"""What is still being read when a batch could start joins it; a lone caller waits for no turn of the event loop."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from server.batcher import Batcher, BatcherOptions
from server.tensors import Array, TensorSpec
from tests import virtual_time
from tests.batcher_scenarios import MS, ROW_WIDTH, rows_of

X = TensorSpec("x", "INT64", (-1, ROW_WIDTH))


class Engine:
    """Takes a millisecond for a batch, and notes how many rows it had."""

    inputs, outputs, max_batch_rows = (X,), (TensorSpec("y", "INT64", (-1, ROW_WIDTH)),), 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def cost_s(self, rows: int) -> float:
        return 0.0

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.batches.append(len(inputs["x"]))
        await asyncio.sleep(1 * MS)
        return {"y": inputs["x"]}


def make(engine: Any) -> Batcher:
    options = BatcherOptions(max_batch_rows=4, max_batch_s=1.0)
    return Batcher(engine, options, clock=asyncio.get_running_loop().time)


async def turn_loop(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("callers", "apart", "batches"),
    [
        (3, 2, [3, 3, 3]),  # each is read a turn after the one before, and run in the next
        (3, 6, [3, 1, 2]),  # nothing came for a turn: what is there runs
        (6, 2, [4, 4, 4]),  # and is never fuller than full
    ],
)
def test_who_asks_again_at_once_shares_a_batch_again(callers: int, apart: int, batches: list[int]) -> None:
    async def main() -> list[int]:
        engine = Engine()
        batcher = make(engine)

        async def ask(number: int) -> None:
            for _ in range(3):
                await batcher.submit(rows_of(range(number, number + 1)))
                await turn_loop(number * apart)

        await asyncio.gather(*(ask(number) for number in range(callers)))
        return engine.batches

    assert virtual_time.run(main())[:3] == batches


def test_a_lone_caller_waits_for_no_turn() -> None:
    async def main() -> list[int]:
        engine, turns = Engine(), []
        batcher = make(engine)
        for number in range(3):
            task = asyncio.ensure_future(batcher.submit(rows_of(range(number, number + 1))))
            turns.append(0)
            while len(engine.batches) == number:
                turns[-1] += 1
                await asyncio.sleep(0)
            await task
        return turns

    assert virtual_time.run(main()) == [2, 2, 2]  # the caller's own and the batcher's


def test_who_goes_while_others_are_read_costs_the_model_nothing() -> None:
    async def main() -> list[int]:
        engine = Engine()
        batcher = make(engine)
        await asyncio.gather(*(batcher.submit(rows_of(range(number, number + 1))) for number in range(3)))
        leaving = asyncio.ensure_future(batcher.submit(rows_of(range(7, 8))))
        await turn_loop(2)
        leaving.cancel()
        await asyncio.wait([leaving])
        await turn_loop(4)
        assert batcher.idle
        await batcher.close()
        return engine.batches

    assert virtual_time.run(main()) == [3]
