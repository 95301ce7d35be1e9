import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shoal_client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    ShoalError,
    Unauthenticated,
)
from shoal_client.flight import Flight, Item, Order
from shoal_client.results import Answer, Outcome, Timing
from shoal_client.retries import Clock, RetryPolicy

ANSWER = Answer((), "m", 1, Timing(0, 0, 0))


class Bench:
    """A flight on a clock that stands still until it is told."""

    def __init__(self, window: int = 4, timeout_s: float | None = None, patience_s: float = 10.0) -> None:
        self.now_s = 0.0
        clock = Clock(now_s=lambda: self.now_s, draw=lambda: 1.0)
        policy = RetryPolicy(base_s=1.0, cap_s=4.0, patience_s=patience_s)
        self.flight = Flight(window, policy, clock, timeout_s)

    def launch_all(self, size: int = 1) -> list[Item]:
        launched = []
        while True:
            while (item := self.flight.launch()) is not None:
                launched.append(item)
            if not self.flight.wants_more():
                return launched
            self.flight.accept(b"x" * size)


def test_the_window_bounds_what_flies() -> None:
    bench = Bench(window=4)
    items = bench.launch_all()
    assert [item.position for item in items] == [0, 1, 2, 3]
    bench.flight.settle(items[2], ANSWER)
    assert [item.position for item in bench.launch_all()] == [4]


def test_a_refusal_halves_the_window_once_and_waits() -> None:
    bench = Bench(window=8)
    items = bench.launch_all()
    for item in items:
        assert bench.flight.settle(item, Overloaded("full")) is None
    assert bench.launch_all() == []
    assert bench.flight.wait_s() == pytest.approx(1.0)
    bench.now_s = 1.0
    again = bench.launch_all()
    assert len(again) == 4
    assert {item.position for item in again} <= set(range(8))
    bench.flight.settle(again[0], Overloaded("full"))
    assert bench.flight.wait_s() == pytest.approx(2.0)


def test_answers_let_the_window_grow_again() -> None:
    bench = Bench(window=8)
    items = bench.launch_all()
    for item in items:
        bench.flight.settle(item, Overloaded("full"))
    bench.now_s = 1.0
    for _ in range(20):
        for item in bench.launch_all():
            bench.flight.settle(item, ANSWER)
    assert len(bench.launch_all()) == 8


def test_without_one_answer_patience_ends() -> None:
    bench = Bench(window=1, patience_s=10)
    (item,) = bench.launch_all()
    outcome = None
    for _ in range(100):
        outcome = bench.flight.settle(item, Overloaded("full"))
        if outcome:
            break
        bench.now_s += bench.flight.wait_s() or 0
        (item,) = bench.launch_all()
    assert outcome is not None
    assert isinstance(outcome.error, Overloaded)
    assert 10 < bench.now_s < 16


def test_a_slow_picture_holds_up_what_is_eight_windows_ahead() -> None:
    bench = Bench(window=2)
    slow, other = bench.launch_all()
    bench.flight.settle(other, ANSWER)
    for _ in range(100):
        for item in bench.launch_all():
            bench.flight.settle(item, ANSWER)
    assert bench.flight.accepted == 16
    bench.flight.settle(slow, ANSWER)
    assert [item.position for item in bench.launch_all()] == [16, 17]


def test_a_bad_picture_is_told_at_once() -> None:
    bench = Bench()
    items = bench.launch_all()
    outcome = bench.flight.settle(items[1], InvalidInput("no picture"))
    assert outcome is not None
    assert outcome.position == 1
    with pytest.raises(InvalidInput, match="no picture"):
        outcome.unwrap()


def test_what_flew_on_a_broken_stream_flies_again_in_order() -> None:
    bench = Bench(window=4)
    items = bench.launch_all()
    assert bench.flight.lose(items[:0:-1], ConnectionLost("gone")) == []
    bench.flight.settle(items[0], ANSWER)
    bench.now_s = 1.0
    assert [item.position for item in bench.launch_all()][:2] == [1, 2]


def test_an_idle_stream_that_ends_slows_nothing_down() -> None:
    bench = Bench(window=4)
    bench.flight.lose([], ConnectionLost("gone"))
    assert len(bench.launch_all()) == 4


def test_of_a_stream_that_ended_over_a_size_the_largest_was_too_large() -> None:
    bench = Bench(window=3)
    for size in (5, 50, 7):
        bench.flight.accept(b"x" * size)
    items = bench.launch_all()
    (outcome,) = bench.flight.lose(items, PayloadTooLarge("over 40 bytes"))
    assert outcome.position == 1
    assert [item.position for item in bench.launch_all()] == [0, 2, 3]


def test_an_error_that_meets_every_stream_ends_the_call() -> None:
    bench = Bench()
    with pytest.raises(Unauthenticated):
        bench.flight.lose(bench.launch_all(), Unauthenticated("who?"))


def test_the_deadline_ends_the_call() -> None:
    bench = Bench(timeout_s=3)
    bench.launch_all()
    assert bench.flight.wait_s() == pytest.approx(3)
    bench.now_s = 3.0
    with pytest.raises(DeadlineExceeded, match="3 s"):
        bench.flight.wait_s()


@settings(deadline=None)
@given(count=st.integers(0, 60), window=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_every_picture_is_settled_exactly_once_and_told_in_order(count: int, window: int, seed: int) -> None:
    chance, bench, order = random.Random(seed), Bench(window=window, patience_s=1e9), Order()
    flying: list[Item] = []
    told: list[Outcome] = []
    while not bench.flight.done:
        while (item := bench.flight.launch()) is not None:
            flying.append(item)
        assert len(flying) <= window
        if bench.flight.wants_more():
            if bench.flight.accepted == count:
                bench.flight.ended = True
            else:
                bench.flight.accept(b"x")
            continue
        if not flying:
            bench.now_s += bench.flight.wait_s() or 0
            continue
        if chance.random() < 0.1:
            lost, flying = flying, []
            assert bench.flight.lose(lost, ConnectionLost("gone")) == []
            continue
        item = flying.pop(chance.randrange(len(flying)))
        results: list[Answer | ShoalError] = [ANSWER, ANSWER, Overloaded("full"), InvalidInput("bad")]
        outcome = bench.flight.settle(item, chance.choice(results))
        told += order.add(outcome) if outcome else []
    assert [outcome.position for outcome in told] == list(range(count))
