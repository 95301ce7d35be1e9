"""One batch: whose rows it holds, and how each gets its own back.

spans of tickets ─▶ inputs ─▶ engine ─▶ outputs ─▶ settle: rows [start, stop) to the ticket they came from
                                         raised ─▶ fail
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from server.errors import InferenceFailed, ShoalError
from server.tensors import Array
from server.ticket_queue import Span, Ticket


class BatchResult(NamedTuple):
    """One request's answer.

    Args:
        outputs: Arrays by output name, the request's own rows only, in memory that no later batch writes to.
        queue_s: From `submit` to the start of its first batch.
        infer_s: Running the batches its rows were in.
    """

    outputs: Mapping[str, Array]
    queue_s: float
    infer_s: float


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """What the batcher holds now and has done so far.

    Args:
        queued_rows: Rows that wait.
        queued_bytes: Their bytes.
        running_rows: Rows in the batch that runs.
        batches: Batches that ran, failed ones included.
        rows: Rows in them.
        expired: Requests whose deadline passed while they waited.
        cancelled: Requests whose callers went away before the answer.
        failed: Requests whose batch failed.
        refused: Requests that found the queue full.
        batch_rows: How many batches had so many rows.
    """

    queued_rows: int
    queued_bytes: int
    running_rows: int
    batches: int
    rows: int
    expired: int
    cancelled: int
    failed: int
    refused: int
    batch_rows: Mapping[int, int]


class Batch(NamedTuple):
    """Rows that run together.

    Args:
        spans: Whose they are, in the order in which they lie.
        rows: How many.
        inputs: Arrays by input name.
        slab: Which slab they lie in; None for the one ticket's own arrays.
    """

    spans: list[Span]
    rows: int
    inputs: Mapping[str, Array]
    slab: int | None

    @property
    def whole(self) -> bool:
        """Whether it is one whole request and nothing else."""
        return self.slab is None and self.rows == self.spans[0][0].rows

    def check(self, outputs: Mapping[str, Array]) -> None:
        """Checks that outputs can be given back row by row. A whole request gets whatever the model answers.

        Raises:
            ValueError: An output has another number of rows.
        """
        if self.whole:
            return
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != self.rows:
                raise ValueError(
                    f"expected {self.rows} rows in output '{name}', received shape {array.shape}: this model does not"
                    " answer row by row; serve it with max_batch_rows 1"
                )

    def settle(self, outputs: Mapping[str, Array], started_s: float, infer_s: float) -> None:
        """Gives each ticket its own rows, unless its caller has gone meanwhile.

        Args:
            outputs: Checked.
            started_s: When the engine began, on the batcher's clock.
            infer_s: How long it took.
        """
        if self.whole:
            _answer(self.spans[0][0], outputs, started_s, infer_s)
            return
        items = tuple(outputs.items())
        stop = 0
        for ticket, _, rows in self.spans:
            start, stop = stop, stop + rows
            own = {name: array[start:stop] for name, array in items}
            if rows == ticket.rows:
                _answer(ticket, own, started_s, infer_s)
            else:
                _rejoin(ticket, own, started_s, infer_s)

    def fail(self, error: BaseException) -> int:
        """Gives each ticket an error of its own.

        Args:
            error: What the engine raised. If it is meant for a caller and the batch has only one, it goes unchanged.

        Returns:
            How many callers got it.
        """
        waiting = [ticket for ticket, _, _ in self.spans if not ticket.future.done()]
        for ticket in waiting:
            failure: BaseException = error
            if not isinstance(error, ShoalError) or len(self.spans) > 1:
                failure = InferenceFailed(f"the model failed on this batch: {str(error) or type(error).__name__}")
                failure.__cause__ = error
            ticket.future.set_exception(failure)
        return len(waiting)


def own_rows(ticket: Ticket, first: int, rows: int) -> Mapping[str, Array]:
    """One ticket's rows as they came, without a copy."""
    if rows == ticket.rows:
        return ticket.inputs
    return {name: array[first : first + rows] for name, array in ticket.inputs.items()}


def _answer(ticket: Ticket, own: Mapping[str, Array], started_s: float, infer_s: float) -> None:
    if not ticket.future.done():
        ticket.future.set_result(BatchResult(own, started_s - ticket.submitted_s, infer_s))


def _rejoin(ticket: Ticket, own: Mapping[str, Array], started_s: float, infer_s: float) -> None:
    """Keeps one part of a split request's answer; the last part settles it."""
    if ticket.future.done():
        return
    if not ticket.parts:
        ticket.queue_s = started_s - ticket.submitted_s
    ticket.parts = (*ticket.parts, own)
    ticket.infer_s += infer_s
    if sum(len(next(iter(part.values()))) for part in ticket.parts) == ticket.rows:
        outputs = {name: np.concatenate([part[name] for part in ticket.parts]) for name in own}
        ticket.future.set_result(BatchResult(outputs, ticket.queue_s, ticket.infer_s))
