import asyncio
import functools
import math
from typing import Any

from server.ticket_queue import MAX_GONE, Span, Ticket, TicketQueue
from tests.batcher_scenarios import rows_of


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.close()  # futures need one, but the queue never runs anything on it
    return loop


def ticket(rows: int = 1, *, priority: int = 0, deadline_s: float = math.inf, submitted_s: float = 0.0) -> Ticket:
    future: asyncio.Future[Any] = asyncio.Future(loop=_loop())
    return Ticket(future, rows_of(range(rows)), rows, 24 * rows, priority, deadline_s, submitted_s)


def filled(*tickets: Ticket) -> TicketQueue:
    queue = TicketQueue()
    for one in tickets:
        queue.push(one)
    return queue


def take(queue: TicketQueue, limit_rows: int, *, alone: bool = False) -> list[Span]:
    spans = queue.peek(limit_rows, alone=alone)
    queue.commit(spans)
    return spans


def test_tickets_leave_by_priority_and_then_by_arrival() -> None:
    a, b, c, d = ticket(priority=1), ticket(), ticket(priority=1), ticket(priority=-3)
    queue = filled(a, b, c, d)
    assert take(queue, 3) == [(d, 0, 1), (b, 0, 1), (a, 0, 1)]
    assert take(queue, 3) == [(c, 0, 1)]
    assert take(queue, 3) == []
    assert queue._gone == 0


def test_a_peek_takes_nothing() -> None:
    queue = filled(ticket(3), ticket(3))
    assert queue.peek(4, alone=False) == queue.peek(4, alone=False)
    assert (queue.rows, queue.n_bytes) == (6, 144)


def test_what_does_not_fit_is_split_and_goes_first_next_time() -> None:
    large, small = ticket(7), ticket(2)
    queue = filled(large, small)
    assert take(queue, 3) == [(large, 0, 3)]
    assert (queue.rows, queue.n_bytes) == (6, 9 * 24), "its arrays are still held"
    assert take(queue, 3) == [(large, 3, 3)]
    assert take(queue, 3) == [(large, 6, 1), (small, 0, 2)]
    assert (queue.rows, queue.n_bytes) == (0, 0)


def test_alone_means_rows_of_one_ticket() -> None:
    a, b = ticket(2), ticket(1)
    queue = filled(a, b)
    assert take(queue, 1, alone=True) == [(a, 0, 1)]
    assert take(queue, 100, alone=True) == [(a, 1, 1)]
    assert take(queue, 100, alone=True) == [(b, 0, 1)]


def test_a_dropped_ticket_leaves_no_rows_and_no_memory() -> None:
    a, b, c = ticket(2), ticket(3), ticket(4)
    queue = filled(a, b, c)
    assert queue.drop(b)
    assert b.inputs == {}
    assert (queue.rows, queue.n_bytes) == (6, 144)
    assert not queue.drop(b)
    assert (queue.rows, queue.n_bytes) == (6, 144)
    assert take(queue, 10) == [(a, 0, 2), (c, 0, 4)]
    assert not queue.drop(a), "a batch has it already"


def test_a_dropped_tickets_rows_are_ahead_of_nobody() -> None:
    a, b, c = ticket(2, priority=-1), ticket(3), ticket(4)
    queue = filled(a, b, c)
    queue.drop(b)
    assert b.waiting_rows == 0
    assert [queue.rows_ahead_of(priority) for priority in (-1, 0)] == [2, 6]


def test_a_split_ticket_can_be_dropped_in_the_middle() -> None:
    a, b = ticket(5), ticket(1)
    queue = filled(a, b)
    take(queue, 2)
    assert queue.drop(a)
    assert (queue.rows, queue.n_bytes) == (1, 24)
    assert take(queue, 2) == [(b, 0, 1)]


def test_a_ticket_whose_future_is_settled_is_passed_over_and_purged() -> None:
    a, b = ticket(2), ticket(1)
    queue = filled(a, b)
    a.future.cancel()
    assert queue.peek(5, alone=False) == [(b, 0, 1)]
    assert queue.rows == 3
    queue.purge()
    assert queue.rows == 1
    assert queue.peek(5, alone=False) == [(b, 0, 1)]


def test_expired_tickets_are_taken_out_in_order() -> None:
    a, b, c, d = ticket(deadline_s=5), ticket(deadline_s=3), ticket(), ticket(deadline_s=4, priority=-1)
    queue = filled(a, b, c, d)
    assert queue.earliest_deadline_s() == 3
    assert queue.expire(2.9) == []
    assert queue.expire(4.0) == [d, b]
    assert queue.earliest_deadline_s() == 5
    assert queue.rows == 2
    assert queue.drain() == [a, c]
    assert queue.earliest_deadline_s() == math.inf
    assert queue.rows == 0


def test_the_oldest_arrival_is_known_across_priorities() -> None:
    queue = filled(ticket(submitted_s=4.0, priority=-1), ticket(submitted_s=2.0), ticket(submitted_s=3.0))
    assert queue.oldest_submitted_s() == 2.0
    assert TicketQueue().oldest_submitted_s() == math.inf


def test_rows_ahead_are_those_of_the_same_or_a_higher_priority() -> None:
    queue = filled(ticket(1, priority=-1), ticket(2), ticket(4, priority=9))
    assert [queue.rows_ahead_of(priority) for priority in (-2, -1, 0, 8, 9, 10)] == [0, 1, 3, 3, 7, 7]
    only = filled(ticket(2, priority=3))
    assert [only.rows_ahead_of(priority) for priority in (2, 3, 4)] == [0, 2, 2]
    take(only, 1)
    assert only.rows_ahead_of(3) == 1
    only.drain()
    assert only.rows_ahead_of(3) == 0
    assert TicketQueue().rows_ahead_of(0) == 0


def test_empty_lanes_are_forgotten() -> None:
    queue = filled(*(ticket(priority=n) for n in range(1000)))
    take(queue, 999)
    assert list(queue._lanes) == list(queue._lane_rows) == queue._order == [999]
    queue.push(ticket(priority=4))
    assert queue._order == [4, 999]


def test_dropped_tickets_do_not_pile_up() -> None:
    first = ticket()
    queue = filled(first)
    for n in range(10_000):
        gone = ticket(priority=n % 7)
        queue.push(gone)
        queue.drop(gone)
        assert sum(map(len, queue._lanes.values())) <= MAX_GONE + 3
    assert take(queue, 5) == [(first, 0, 1)]
    assert queue._gone == 0
    assert queue._order == []


def test_a_rebuild_keeps_order_and_counts() -> None:
    kept = [ticket(priority=n % 2) for n in range(6)]
    queue = filled(*kept)
    gone = [ticket(priority=n % 3) for n in range(MAX_GONE + 7)]
    for one in gone:
        queue.push(one)
    for one in gone:
        queue.drop(one)
    assert queue._gone == 0
    assert queue._order == [0, 1]
    assert take(queue, 10) == [(one, 0, 1) for one in (kept[0], kept[2], kept[4], kept[1], kept[3], kept[5])]
