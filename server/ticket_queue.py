"""Tickets in the order in which they will run: lower priority number first, arrival order inside a priority.

    push ──▶ lanes by priority ──peek(limit)──▶ spans of rows ──commit──▶ (the batch has them)
               └ drop (cancelled) · expire (deadline passed)

Pure bookkeeping: no event loop, no clock, no engine. The batcher settles the futures.
"""

import asyncio
import bisect
import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from server.tensors import Array

# A dropped ticket stays in its lane until it reaches the front, since a deque is slow to remove from. With so many more
# of them than rows that wait, the lanes are rebuilt.
MAX_GONE: Final = 64


class Ticket:
    """One request on its way through the batcher.

    Args:
        future: Settled exactly once, with the request's own rows or an error.
        inputs: Arrays by input name.
        rows: Rows in each of them.
        n_bytes: Their size.
        priority: Lower runs earlier.
        deadline_s: When it stops being worth anything, on the batcher's clock; infinity for never.
        submitted_s: When it came, on the same clock.
    """

    __slots__ = (
        "deadline_s",
        "future",
        "infer_s",
        "inputs",
        "n_bytes",
        "parts",
        "priority",
        "queue_s",
        "rows",
        "submitted_s",
        "waiting_rows",
    )

    def __init__(
        self,
        future: "asyncio.Future[Any]",
        inputs: Mapping[str, Array],
        rows: int,
        n_bytes: int,
        priority: int,
        deadline_s: float,
        submitted_s: float,
    ) -> None:
        self.future = future
        self.inputs = inputs
        self.rows = rows
        self.n_bytes = n_bytes
        self.priority = priority
        self.deadline_s = deadline_s
        self.submitted_s = submitted_s
        self.waiting_rows = rows  # not yet in any batch; 0 once it has left the queue
        # The rest is used only by a ticket that runs in several batches.
        self.parts: tuple[Mapping[str, Array], ...] = ()
        self.queue_s: float
        self.infer_s = 0.0


Span = tuple[Ticket, int, int]  # a ticket, the first of its rows that the batch takes, and how many


class TicketQueue:
    """Tickets that wait, bounded by whoever pushes."""

    def __init__(self) -> None:
        self.rows = 0
        self.n_bytes = 0
        self._lanes: dict[int, deque[Ticket]] = {}
        self._lane_rows: dict[int, int] = {}
        self._order: list[int] = []
        self._gone = 0  # tickets that have left but are still in a lane

    def push(self, ticket: Ticket) -> None:
        """Puts a ticket behind the others of its priority."""
        lane = self._lanes.get(ticket.priority)
        if lane is None:
            lane = self._open_lane(ticket.priority)
        lane.append(ticket)
        self.rows += ticket.rows
        self.n_bytes += ticket.n_bytes
        self._lane_rows[ticket.priority] += ticket.rows

    def peek(self, limit_rows: int, *, alone: bool) -> list[Span]:
        """The spans that a batch would take now, without taking them.

        Args:
            limit_rows: Rows in the batch at most; a ticket that does not fit is split.
            alone: Rows of one ticket only.
        """
        spans: list[Span] = []
        space = limit_rows
        for priority in self._order:
            for ticket in self._lanes[priority]:
                waiting = ticket.waiting_rows
                if not waiting or ticket.future.done():
                    continue
                spans.append((ticket, ticket.rows - waiting, min(space, waiting)))
                space -= waiting
                if alone or space <= 0:
                    return spans
        return spans

    def commit(self, spans: list[Span]) -> None:
        """Takes what `peek` has just returned."""
        for ticket, _, rows in spans:
            ticket.waiting_rows -= rows
            self.rows -= rows
            self._lane_rows[ticket.priority] -= rows
            if not ticket.waiting_rows:
                self.n_bytes -= ticket.n_bytes
                self._gone += 1
        self._trim()

    def drop(self, ticket: Ticket) -> bool:
        """Takes a ticket out whose caller has gone.

        Returns:
            Whether any of it was still waiting.
        """
        if not ticket.waiting_rows:
            return False
        self.rows -= ticket.waiting_rows
        self._lane_rows[ticket.priority] -= ticket.waiting_rows
        self.n_bytes -= ticket.n_bytes
        ticket.waiting_rows = 0
        ticket.inputs = {}  # the rows' memory is free at once, though the ticket stays in its lane for a while
        self._gone += 1
        if self._gone > MAX_GONE + self.rows:
            self._rebuild()
        return True

    def expire(self, now_s: float) -> list[Ticket]:
        """Takes out every ticket whose deadline has passed, in the order in which they would have run."""
        late = [ticket for ticket in self._live() if ticket.deadline_s <= now_s]
        for ticket in late:
            self.drop(ticket)
        return late

    def purge(self) -> None:
        """Drops the tickets whose futures are settled already: cancelled, and their waiters have not run yet."""
        for ticket in [ticket for ticket in self._waiting() if ticket.future.done()]:
            self.drop(ticket)

    def drain(self) -> list[Ticket]:
        """Takes out every ticket."""
        return self.expire(math.inf)

    def earliest_deadline_s(self) -> float:
        """The earliest deadline of all that wait; infinity where there is none."""
        return min((ticket.deadline_s for ticket in self._live()), default=math.inf)

    def oldest_submitted_s(self) -> float:
        """When the ticket that has waited longest came; infinity where none waits."""
        return min((ticket.submitted_s for ticket in self._live()), default=math.inf)

    def rows_ahead_of(self, priority: int) -> int:
        """Rows that would run before a ticket of this priority that came now."""
        if len(self._order) == 1:  # every request is asked about, and few name a priority
            return self.rows if self._order[0] <= priority else 0
        return sum(self._lane_rows[lane] for lane in self._order if lane <= priority)

    def _waiting(self) -> Iterator[Ticket]:
        tickets = itertools.chain.from_iterable([self._lanes[priority] for priority in self._order])
        return (ticket for ticket in tickets if ticket.waiting_rows)

    def _live(self) -> Iterator[Ticket]:
        # A future may have been cancelled without its waiter having run yet: such a ticket is as good as dropped.
        return (ticket for ticket in self._waiting() if not ticket.future.done())

    def _open_lane(self, priority: int) -> deque[Ticket]:
        bisect.insort(self._order, priority)
        self._lane_rows[priority] = 0
        lane = self._lanes[priority] = deque()
        return lane

    def _trim(self) -> None:
        """Removes what has left from the front; lanes behind the first that still has tickets are left for later."""
        while self._order:
            lane = self._lanes[self._order[0]]
            while lane and not lane[0].waiting_rows:
                lane.popleft()
                self._gone -= 1
            if lane:
                return
            self._close_lane(self._order[0])

    def _rebuild(self) -> None:
        for priority, lane in list(self._lanes.items()):
            self._lanes[priority] = deque(ticket for ticket in lane if ticket.waiting_rows)
            if not self._lanes[priority]:
                self._close_lane(priority)
        self._gone = 0

    def _close_lane(self, priority: int) -> None:
        del self._lanes[priority], self._lane_rows[priority]
        self._order.remove(priority)
