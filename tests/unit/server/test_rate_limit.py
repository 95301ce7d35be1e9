import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import RateLimited
from server.rate_limit import CELLS, TABLE_VARIABLE, Limits, RateTable, open_table, passed_on, shared_table


class Clock:
    def __init__(self) -> None:
        self.now_us = 1_000_000_000

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture(scope="module")
def table() -> Iterator[RateTable]:
    table = RateTable.create()
    yield table
    table.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(limits: Limits, client: str, tries: int) -> int:
    """How many of so many requests are let in at one moment."""
    count = 0
    for _ in range(tries):
        try:
            limits.take(client)
        except RateLimited:
            continue
        count += 1
    return count


def test_a_second_s_worth_at_once_and_then_the_rate(table: RateTable, clock: Clock) -> None:
    limits = Limits(10, 0, table, clock)
    assert taken(limits, "steady", 50) == 10
    for _ in range(20):
        clock.now_us += 100_000
        assert taken(limits, "steady", 5) == 1


def test_a_client_that_rests_gets_no_more_than_a_second_s_worth(table: RateTable, clock: Clock) -> None:
    limits = Limits(10, 0, table, clock)
    assert taken(limits, "rested", 50) == 10
    clock.now_us += 3_600_000_000
    assert taken(limits, "rested", 50) == 10


def test_less_than_one_a_second_is_one_at_a_time(table: RateTable, clock: Clock) -> None:
    limits = Limits(0.1, 0, table, clock)
    assert taken(limits, "rare", 5) == 1
    clock.now_us += 9_900_000
    assert taken(limits, "rare", 5) == 0
    clock.now_us += 100_000
    assert taken(limits, "rare", 5) == 1


def test_a_refusal_says_when_to_come_again_and_costs_nothing(table: RateTable, clock: Clock) -> None:
    limits = Limits(2, 0, table, clock)
    assert taken(limits, "told", 10) == 2
    with pytest.raises(RateLimited, match="at most 2 requests per second") as refused:
        limits.take("told")
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.now_us += 500_000
    limits.take("told")


def test_one_client_s_rate_is_no_other_s(table: RateTable, clock: Clock) -> None:
    limits = Limits(5, 0, table, clock)
    assert taken(limits, "greedy", 100) == 5
    assert [taken(limits, f"modest {number}", 5) for number in range(200)] == [5] * 200


@given(st.lists(st.integers(0, 300_000), max_size=60), st.integers(1, 50))
def test_never_more_than_the_rate_and_a_second_s_worth(waits_us: list[int], rate_per_s: int) -> None:
    table, clock = RateTable.create(), Clock()
    limits, began_us, let_in = Limits(rate_per_s, 0, table, clock), clock.now_us, 0
    for wait_us in waits_us:
        clock.now_us += wait_us
        let_in += taken(limits, "any", 3)
    table.close()
    assert let_in <= (clock.now_us - began_us) / 1e6 * rate_per_s + rate_per_s + 1


def test_two_that_share_one_cell_are_told_apart_by_the_other(clock: Clock) -> None:
    table = RateTable.create()
    # Every other cell is as full as a thousand busy clients would make them.
    for number in range(1000):
        table.advance(f"busy {number}", clock.now_us, 1_000_000, 1_000_000)
    let_in = [table.advance(f"other {number}", clock.now_us, 1_000_000, 1_000_000) == 0 for number in range(2000)]
    table.close()
    # Two of them share both cells, more or less; with one cell each it would be 30. Cells are drawn by a random key.
    assert let_in.count(False) <= 12
    assert CELLS == 1 << 17


def test_workers_keep_one_rate_together(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TABLE_VARIABLE, raising=False)
    with shared_table(wanted=True):
        (descriptor,) = passed_on()
        # What `pass_fds` does: the worker has a descriptor of its own for the same memory.
        first, second = RateTable(os.dup(descriptor)), RateTable(os.dup(descriptor))
        assert taken(Limits(10, 0, first, clock), "both", 7) == 7
        assert taken(Limits(10, 0, second, clock), "both", 7) == 3
        first.close()
        second.close()
    assert passed_on() == ()


def test_without_a_rate_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TABLE_VARIABLE, raising=False)
    with shared_table(wanted=False):
        assert passed_on() == ()
    table = open_table()
    table.close()


def test_so_many_at_a_time_and_no_more() -> None:
    limits = Limits(0, 2, None)
    limits.take("a")
    limits.enter("a")
    limits.enter("a")
    with pytest.raises(RateLimited, match="at most 2 requests of one client at a time"):
        limits.enter("a")
    limits.enter("b")
    limits.leave("a")
    limits.enter("a")
    for client in ("a", "a", "b"):
        limits.leave(client)
    assert limits._under_way == {}


def test_without_limits_nothing_is_counted() -> None:
    limits = Limits(0, 0, None)
    for _ in range(1000):
        limits.take("a")
        limits.enter("a")
    assert limits._under_way == {}
