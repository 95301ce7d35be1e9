"""An engine that tests of the batcher command, and short words for what they do with it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from server.batcher import Batcher, BatcherOptions, BatchResult
from server.tensors import Array, TensorSpec
from tests import virtual_time
from tests.batcher_scenarios import MS, ROW_WIDTH, rows_of

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
