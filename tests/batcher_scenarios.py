"""Scenarios for the batcher: requests that come, wait, give up and fail by a script, and a record of what happened.

Every row has a number of its own, and the fake engine answers each row by a function of that number, so a wrong row in
a wrong place always shows.
"""

import asyncio
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from server.batcher import Batcher, BatcherOptions, BatchResult
from server.deadline import Deadline
from server.tensors import Array, TensorSpec
from tests.virtual_time import now_s

MS = 1e-3
ROW_WIDTH = 3


@dataclass
class Run:
    """One batch that the engine saw."""

    event: int
    started_s: float
    rows: list[int]
    ended_s: float = math.inf
    raised: bool = False


class FakeEngine:
    """Takes one batch at a time, for a time that is known, and raises where a row is poisoned."""

    inputs = (TensorSpec("x", "INT64", (-1, ROW_WIDTH)),)
    outputs = (TensorSpec("y", "INT64", (-1,)), TensorSpec("z", "INT64", (-1, ROW_WIDTH)))

    def __init__(self, *, batch_s: float = 1 * MS, row_s: float = 0.0, max_batch_rows: int = 4) -> None:
        self.max_batch_rows = max_batch_rows
        self.batch_s = batch_s
        self.row_s = row_s
        self.poison: set[int] = set()
        self.runs: list[Run] = []
        self.events = itertools.count()
        self.busy = False

    def cost_s(self, rows: int) -> float:
        return self.batch_s + rows * self.row_s

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        assert not self.busy, "two batches at a time"
        x = inputs["x"]
        run = Run(next(self.events), now_s(), x[:, 0].tolist())
        self.runs.append(run)
        self.busy = True
        try:
            await asyncio.sleep(self.cost_s(len(x)))
        finally:
            self.busy = False
            run.ended_s = now_s()
        run.raised = not self.poison.isdisjoint(run.rows)
        if run.raised:
            raise RuntimeError("poisoned row")
        # Read only now, so that a slab written to during the run shows. "z" is the input itself: a careless engine's.
        return {"y": x[:, 0] * 7 + 1, "z": x}


def rows_of(numbers: range) -> dict[str, Array]:
    """An input whose rows have these numbers."""
    return {"x": np.repeat(np.array(numbers, dtype=np.int64)[:, None], ROW_WIDTH, axis=1)}


@dataclass(frozen=True)
class Request:
    """One request of a script, times in whole milliseconds so that they often coincide."""

    at_ms: int
    rows: int
    priority: int = 0
    budget_ms: int | None = None
    cancel_after_ms: int | None = None
    poisoned: bool = False


@dataclass
class Outcome:
    """What became of one request."""

    request: Request
    numbers: range
    order: int = -1
    submitted_s: float = math.nan
    settled_s: float = math.nan
    cancelled_event: int | None = None
    result: BatchResult | None = None
    error: BaseException | None = None

    @property
    def deadline_s(self) -> float:
        budget_ms = self.request.budget_ms
        return math.inf if budget_ms is None else (self.request.at_ms + budget_ms) * MS


@dataclass
class Record:
    """What happened in one scenario."""

    engine: FakeEngine
    batcher: Batcher
    outcomes: list[Outcome]
    queued_rows: list[int] = field(default_factory=list)
    closed_event: int = -1
    closing_s: float = math.nan
    closed_s: float = math.nan

    def runs_of(self, outcome: Outcome) -> list[Run]:
        """The batches that held any of its rows."""
        return [run for run in self.engine.runs if not set(outcome.numbers).isdisjoint(run.rows)]


async def play(
    requests: list[Request],
    options: BatcherOptions,
    *,
    batch_ms: int = 3,
    row_ms: int = 0,
    close_at_ms: int | None = None,
) -> Record:
    """Plays a script to its end, closes the batcher, and says what happened."""
    engine = FakeEngine(batch_s=batch_ms * MS, row_s=row_ms * MS, max_batch_rows=options.max_batch_rows)
    batcher = Batcher(engine, options, clock=asyncio.get_running_loop().time)
    starts = itertools.accumulate((request.rows for request in requests), initial=0)
    outcomes = [
        Outcome(request, range(start, start + request.rows)) for request, start in zip(requests, starts, strict=False)
    ]
    engine.poison = {outcome.numbers[0] for outcome in outcomes if outcome.request.poisoned}
    record = Record(engine, batcher, outcomes)
    order = itertools.count()
    async with asyncio.TaskGroup() as group:
        for outcome in outcomes:
            group.create_task(_call(outcome, record, order))
        if close_at_ms is not None:
            await asyncio.sleep(close_at_ms * MS)
            await _close(record)
    if close_at_ms is None:
        await _close(record)
    return record


async def _close(record: Record) -> None:
    record.closed_event, record.closing_s = next(record.engine.events), now_s()
    await record.batcher.close()
    record.closed_s = now_s()


async def _call(outcome: Outcome, record: Record, order: "itertools.count[int]") -> None:
    request = outcome.request
    await asyncio.sleep(request.at_ms * MS)
    deadline = None if request.budget_ms is None else Deadline(outcome.deadline_s)
    outcome.order, outcome.submitted_s = next(order), now_s()
    submitting = record.batcher.submit(rows_of(outcome.numbers), deadline=deadline, priority=request.priority)
    waiting = asyncio.ensure_future(submitting)
    if request.cancel_after_ms is not None:
        asyncio.get_running_loop().call_later(request.cancel_after_ms * MS, _cancel, outcome, record, waiting)
    await asyncio.wait([waiting])
    outcome.settled_s = now_s()
    record.queued_rows.append(record.batcher.statistics().queued_rows)
    if waiting.cancelled():
        outcome.error = asyncio.CancelledError()
    elif (error := waiting.exception()) is not None:
        outcome.error = error
    else:
        outcome.result = waiting.result()


def _cancel(outcome: Outcome, record: Record, waiting: "asyncio.Future[BatchResult]") -> None:
    if waiting.cancel():
        outcome.cancelled_event = next(record.engine.events)
