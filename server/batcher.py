"""Requests of many callers become batches of one model, and every caller gets back its own rows.

    submit ─▶ TicketQueue ─▶ spans of rows ─▶ slab ─▶ engine.run ─▶ own rows ─▶ submit returns
                 │ full? refused     ╰ prepared while the batch before it runs
                 ╰ cancelled or expired: dropped, the model never sees it

One asyncio task serves the queue while there is something in it; no locks. It is work-conserving: an idle engine takes
what is there at once, so a lone request waits for nobody; while a batch runs the queue grows, so load itself makes
batches.

Invariants, tested under the same names in tests/property/test_batcher_properties.py:

- every ticket is settled exactly once, with its own rows
- one client's cancel, bad bytes or failure touches nobody else
- an exception from the model fails its batch and never the loop
- a cancelled or expired ticket costs the model nothing
- arrival order holds inside a priority
- close() drains
- a result is never handed to another caller
"""

import asyncio
import contextvars
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn

from server.batch import Batch, BatcherStatistics, BatchResult, own_rows
from server.deadline import Deadline
from server.errors import (
    DeadlineExceeded,
    Draining,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
)
from server.executor import Engine
from server.pace import Pace
from server.slabs import Slabs, Stacking
from server.tensors import Array
from server.ticket_queue import Span, Ticket, TicketQueue

__all__ = ["BatchResult", "Batcher", "BatcherOptions", "BatcherStatistics"]

ALARM_STEP_S: Final = 0.001  # uvloop's timers are this coarse; a finer one would fire early and spin


@dataclass(frozen=True, slots=True)
class BatcherOptions:
    """The batcher's bounds.

    Args:
        max_batch_rows: Rows in a batch at most; the engine's own bound holds as well.
        max_queue_rows: Rows that may wait.
        max_queue_bytes: Bytes that may wait.
        max_delay_s: How long an idle engine waits for a fuller batch, in seconds, counted from the arrival of the
            ticket that has waited longest.
        max_batch_s: Batches stay so small that one is expected to take no longer than this, in seconds. A quarter of
            the default latency budget leaves room for the batch that runs, the own one and the wait.
    """

    max_batch_rows: int = 32
    max_queue_rows: int = 4096
    max_queue_bytes: int = 256 << 20
    max_delay_s: float = 0.0
    max_batch_s: float = 0.05


class Batcher:
    """Batches for one engine.

    Args:
        engine: Runs one batch at a time.
        options: Bounds.
        clock: Seconds, monotonic; deadlines are on the same clock.
    """

    def __init__(self, engine: Engine, options: BatcherOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._options = options
        self._clock = clock
        self._queue = TicketQueue()
        self._stacking = Stacking(engine.inputs, engine.outputs)
        cap_rows = min(options.max_batch_rows, engine.max_batch_rows)
        self._pace = Pace(engine, cap_rows, options.max_batch_s, one_by_one=not self._stacking.stackable)
        self._slabs = Slabs(engine.inputs, cap_rows)
        self._task: asyncio.Task[None] | None = None
        self._serving = False
        self._last_rows = 1  # of the batch before
        self._closed = False
        self._running: Batch | None = None
        self._turned = True  # whether the event loop has turned since the last batch began
        self._prepared: Batch | None = None
        self._fuller: asyncio.Future[None] | None = None  # what an idle engine with max_delay_s waits on
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf  # never later than the earliest deadline in the queue
        self._batch_rows: Counter[int] = Counter()
        self._expired = self._cancelled = self._failed = self._refused = 0

    async def submit(
        self, inputs: Mapping[str, Array], *, deadline: Deadline | None = None, priority: int = 0
    ) -> BatchResult:
        """Runs one request's rows, together with whatever else waits.

        Args:
            inputs: Arrays by input name, valid for the engine and with equally many rows, at least one. They must not
                change until this returns. More rows than a batch holds are split and rejoined.
            deadline: Until when the request may wait; None for as long as it takes.
            priority: Lower runs earlier.

        Returns:
            The request's own rows, and where its time went.

        Raises:
            InvalidInput: The arrays have no rows.
            PayloadTooLarge: The request alone is more than the queue may hold.
            Overloaded: The queue is full.
            DeadlineExceeded: The deadline passed before all rows were in a batch.
            InferenceFailed: The model raised while it ran one of the request's batches.
            Draining: The batcher is closed.
        """
        ticket = self._enqueue(inputs, math.inf if deadline is None else deadline.at_s, priority)
        try:
            result: BatchResult = await ticket.future
        except (asyncio.CancelledError, GeneratorExit):
            self._abandon(ticket)
            raise
        return result

    def predicted_wait_s(self, rows: int, *, priority: int = 0) -> float:
        """When the last batch with rows of a request that came now would start, in seconds from now.

        Counted are what is left of the running batch, and the queued rows of the same or a higher priority at the
        engine's measured cost and the pace observed between batches.

        Args:
            rows: The request's rows.
            priority: Its priority.
        """
        return self._pace.wait_s(self._queue.rows_ahead_of(priority) + rows, self._clock())

    def predicted_run_s(self, rows: int) -> float:
        """How long the last batch with rows of a request that came now would take, in seconds.

        A busy batcher's batches fill up behind the request; an idle one's holds the request alone.

        Args:
            rows: The request's rows.
        """
        return self._pace.run_s(rows if self.idle else None)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._serving

    async def close(self) -> None:
        """Takes no more requests, and returns once every accepted one is answered."""
        self._closed = True
        if self._fuller is not None and not self._fuller.done():
            self._fuller.set_result(None)
        while self._serving and self._task is not None:
            await asyncio.wait([self._task])
        if self._alarm is not None:
            self._alarm.cancel()

    def statistics(self) -> BatcherStatistics:
        """What the batcher holds now and has done so far."""
        return BatcherStatistics(
            queued_rows=self._queue.rows,
            queued_bytes=self._queue.n_bytes,
            running_rows=self._running.rows if self._running else 0,
            batches=self._batch_rows.total(),
            rows=sum(rows * batches for rows, batches in self._batch_rows.items()),
            expired=self._expired,
            cancelled=self._cancelled,
            failed=self._failed,
            refused=self._refused,
            batch_rows=MappingProxyType(dict(self._batch_rows)),
        )

    def _abandon(self, ticket: Ticket) -> None:
        """The caller has gone. Not cancelled when it was settled in the same instant: then it is counted already."""
        ticket.future.cancel()
        if not ticket.future.cancelled():
            ticket.future.exception()  # asyncio logs an exception that nobody looked at
            return
        self._queue.drop(ticket)
        self._cancelled += 1

    # ---- into the queue ----

    def _enqueue(self, inputs: Mapping[str, Array], deadline_s: float, priority: int) -> Ticket:
        now_s = self._clock()
        rows, n_bytes = self._stacking.measure(inputs)
        queue, options = self._queue, self._options
        if (
            self._closed
            or rows < 1
            or queue.rows + rows > options.max_queue_rows
            or queue.n_bytes + n_bytes > options.max_queue_bytes
            or deadline_s <= now_s
        ):
            self._refuse(rows, n_bytes)
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), inputs, rows, n_bytes, priority, deadline_s, now_s)
        queue.push(ticket)
        if deadline_s < self._alarm_s:
            self._set_alarm(deadline_s, now_s)
        if not self._serving:
            self._serving = True
            # A context of its own: the first caller's request id is not the batch's.
            self._task = loop.create_task(self._serve(), context=contextvars.Context())
        elif queue.rows >= self._pace.limit_rows:
            self._on_full()
        return ticket

    def _refuse(self, rows: int, n_bytes: int) -> NoReturn:
        options = self._options
        if self._closed:
            raise Draining("this model version is being replaced or the server is stopping; send the request again")
        if rows < 1:
            raise InvalidInput("expected at least one row, received none")
        if rows > options.max_queue_rows or n_bytes > options.max_queue_bytes:
            raise PayloadTooLarge(
                f"expected at most {options.max_queue_rows:,} rows and {options.max_queue_bytes:,} bytes in one"
                f" request, received {rows:,} and {n_bytes:,}; send it in several"
            )
        if self._queue.rows + rows > options.max_queue_rows or self._queue.n_bytes + n_bytes > options.max_queue_bytes:
            self._refused += 1
            raise Overloaded(
                f"the queue is full: {self._queue.rows:,} rows wait; send the request again later",
                retry_after_s=self.predicted_wait_s(rows),
                reason="queue_full",
            )
        self._expired += 1
        raise DeadlineExceeded("the deadline had passed before the request came to the queue; allow more time")

    def _on_full(self) -> None:
        if self._fuller is not None and not self._fuller.done():
            self._fuller.set_result(None)
        elif self._prepared is None:
            self._prepare()

    # ---- deadlines: one timer for the whole queue ----

    def _set_alarm(self, deadline_s: float, now_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = deadline_s
        delay_s = max(deadline_s - now_s, ALARM_STEP_S)
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._on_alarm)

    def _on_alarm(self) -> None:
        now_s = self._clock()
        self._expire(now_s)
        self._alarm, self._alarm_s = None, math.inf
        earliest_s = self._queue.earliest_deadline_s()
        if earliest_s < math.inf:
            self._set_alarm(earliest_s, now_s)

    def _expire(self, now_s: float) -> None:
        for ticket in self._queue.expire(now_s):
            self._expired += 1
            waited_ms = 1000 * (now_s - ticket.submitted_s)
            ticket.future.set_exception(
                DeadlineExceeded(f"the deadline passed after {waited_ms:.0f} ms in the queue; allow more time")
            )

    # ---- out of the queue ----

    async def _serve(self) -> None:
        """Runs batches until nothing waits. A busy period is one task."""
        end_s: float | None = None  # when the batch before ended, if this one followed at once
        try:
            while self._queue.rows:
                if self._options.max_delay_s and await self._wait_for_rows():
                    end_s = None
                await self._let_arrive()
                batch = self._next_batch()
                if batch is not None:
                    self._last_rows = batch.rows
                    end_s = await self._run(batch, end_s)
        finally:
            self._serving = False
            self._prepared = None
            for ticket in self._queue.drain():  # only when the task itself was cancelled
                ticket.future.set_exception(Draining("the server is stopping; send the request again"))

    async def _let_arrive(self) -> None:
        """Lets the event loop turn while that brings rows, up to as many as the last batch had.

        No timer: what is in the sockets by now is read and queued. Callers that ask again as soon as they are answered
        are read a few at a time, and would be answered a few at a time for ever: with 32 of them on two workers a batch
        had 7.6 rows, and has 13.3. A lone caller's last batch had one row, so nothing is waited for.
        """
        rows = 0
        while rows < self._queue.rows < self._last_rows:
            rows = self._queue.rows
            await asyncio.sleep(0)  # the loop reads,
            await asyncio.sleep(0)  # and runs what it has read

    async def _wait_for_rows(self) -> bool:
        """Waits up to `max_delay_s` for a full batch. Returns whether it waited."""
        delay_s = self._queue.oldest_submitted_s() + self._options.max_delay_s - self._clock()
        # Infinite where every ticket has just been cancelled: there is nobody to wait for.
        if not 0 < delay_s < math.inf or self._closed or self._queue.rows >= self._pace.limit_rows:
            return False
        self._fuller = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(delay_s):
                await self._fuller
        except TimeoutError:
            pass
        finally:
            self._fuller = None
        return True

    def _next_batch(self) -> Batch | None:
        now_s = self._clock()
        if now_s >= self._alarm_s:
            self._expire(now_s)
        spans = self._peek()
        if not spans:
            self._queue.purge()
            return None
        prepared, self._prepared = self._prepared, None
        # Since it was prepared, a ticket of it may have gone or a more urgent one come.
        batch = prepared if prepared is not None and prepared.spans == spans else self._build(spans)
        self._queue.commit(spans)
        return batch

    def _peek(self) -> list[Span]:
        limit_rows = self._pace.limit_rows if self._stacking.splittable else self._options.max_queue_rows
        return self._queue.peek(limit_rows, alone=not self._stacking.stackable)

    def _prepare(self) -> None:
        """Writes the next batch's rows while one runs, once there are enough of them to fill it."""
        if self._running is not None and self._prepared is None and self._queue.rows >= self._pace.limit_rows:
            spans = self._peek()
            self._prepared = self._build(spans) if spans else None

    def _build(self, spans: list[Span]) -> Batch:
        rows = sum(span[2] for span in spans)
        if len(spans) == 1:
            return Batch(spans, rows, own_rows(*spans[0]), None)
        slab = 1 if self._running is not None and self._running.slab == 0 else 0
        return Batch(spans, rows, self._slabs.write(slab, spans, rows), slab)

    async def _run(self, batch: Batch, previous_end_s: float | None) -> float:
        """Runs one batch and settles its tickets. Returns when it ended, on the clock."""
        self._running = batch
        self._batch_rows[batch.rows] += 1
        self._pace.begin(batch.rows, self._clock())
        self._turned = False
        asyncio.get_running_loop().call_soon(self._on_turn)
        try:
            outputs = self._slabs.detach(await self._engine.run(batch.inputs), batch.slab)
            batch.check(outputs)
        except BaseException as error:
            self._fail(batch, error)
            if not isinstance(error, Exception) and not _is_engines_own(error):
                raise
        else:
            batch.settle(outputs, self._pace.started_s, self._clock() - self._pace.started_s)
        finally:
            self._running = None
        end_s = self._clock()
        self._pace.end(end_s, previous_end_s)
        if not self._turned:
            await asyncio.sleep(0)  # the engine ran on the loop: now that writes answers, reads and keeps its timers
        return end_s

    def _on_turn(self) -> None:
        self._turned = True
        self._prepare()

    def _fail(self, batch: Batch, error: BaseException) -> None:
        self._failed += batch.fail(error)
        for ticket, _, _ in batch.spans:
            self._queue.drop(ticket)  # the rest of a split request would be run for nothing


def _is_engines_own(error: BaseException) -> bool:
    """Tells a run that was cancelled under the batcher from the batcher's own task being cancelled."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()
