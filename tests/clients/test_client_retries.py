import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from shoal_client.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from shoal_client.retries import Clock, Retries, RetryPolicy


class FakeTime:
    """A clock that its own sleeps move."""

    def __init__(self, draw: float = 1.0, oversleeps_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.oversleeps_s = oversleeps_s
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.now_s, self._sleep, self._sleep_async, lambda: draw)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds + self.oversleeps_s

    async def _sleep_async(self, seconds: float) -> None:
        self._sleep(seconds)


class Refusing:
    """Refuses so many times, then answers; each attempt takes 10 ms."""

    def __init__(self, time: FakeTime, times: int, error: Exception | None = None) -> None:
        self.time, self.times = time, times
        self.left_s: list[float | None] = []
        self.error = error or Unavailable("not now")

    def __call__(self, left_s: float | None) -> str:
        self.left_s.append(left_s)
        self.time.now_s += 0.01
        if len(self.left_s) <= self.times:
            raise self.error
        return "answer"


Run = Callable[[Retries, Refusing, float | None], str]


def run_sync(retries: Retries, attempt: Refusing, timeout_s: float | None) -> str:
    return retries.run(attempt, timeout_s)


def run_async(retries: Retries, attempt: Refusing, timeout_s: float | None) -> str:
    async def wrapped(left_s: float | None) -> str:
        return attempt(left_s)

    return asyncio.run(retries.run_async(wrapped, timeout_s))


both = pytest.mark.parametrize("run", [run_sync, run_async])


@both
def test_waits_double_up_to_the_cap(run: Run) -> None:
    time = FakeTime()
    attempt = Refusing(time, 5)
    assert run(Retries(RetryPolicy(attempts=6, base_s=0.1, cap_s=0.5), time.clock), attempt, None) == "answer"
    assert time.slept == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


@both
def test_jitter_is_full(run: Run) -> None:
    time = FakeTime(draw=0.0)
    run(Retries(RetryPolicy(), time.clock), Refusing(time, 2), None)
    assert time.slept == [0, 0]


@both
def test_the_servers_advice_comes_on_top(run: Run) -> None:
    time = FakeTime(draw=0.5)
    run(Retries(RetryPolicy(base_s=0.1), time.clock), Refusing(time, 1, Overloaded("full", retry_after_s=2.0)), None)
    assert time.slept == pytest.approx([2.05])


@both
def test_attempts_are_limited(run: Run) -> None:
    time = FakeTime()
    attempt = Refusing(time, 99)
    with pytest.raises(Unavailable, match="not now"):
        run(Retries(RetryPolicy(attempts=3), time.clock), attempt, None)
    assert len(attempt.left_s) == 3


@both
def test_no_repeat_after_the_deadline(run: Run) -> None:
    time = FakeTime()
    attempt = Refusing(time, 99)
    with pytest.raises(Unavailable):
        run(Retries(RetryPolicy(attempts=99, base_s=0.1, cap_s=0.1), time.clock), attempt, 0.35)
    assert attempt.left_s == pytest.approx([0.35, 0.24, 0.13, 0.02])  # a fourth wait would end at the deadline
    assert time.now_s < 100.35


@both
def test_a_deadline_that_passed_while_waiting_ends_the_call(run: Run) -> None:
    time = FakeTime(oversleeps_s=5)
    late = Retries(RetryPolicy(base_s=0.1), time.clock)
    attempt = Refusing(time, 99)
    with pytest.raises(DeadlineExceeded, match=r"within 1 s"):
        run(late, attempt, 1.0)
    assert len(attempt.left_s) == 1


@both
def test_only_refusals_are_repeated(run: Run) -> None:
    time = FakeTime()
    attempt = Refusing(time, 1, InvalidInput("no picture"))
    with pytest.raises(InvalidInput):
        run(Retries(RetryPolicy(), time.clock), attempt, None)
    assert len(attempt.left_s) == 1


def test_the_budget_bounds_repeats_over_all_calls() -> None:
    time = FakeTime()
    retries = Retries(RetryPolicy(attempts=4, budget_ratio=0.1, budget_burst=10), time.clock)
    attempts = 0
    for _ in range(1000):
        attempt = Refusing(time, 99)
        with pytest.raises(Unavailable):
            retries.run(attempt, None)
        attempts += len(attempt.left_s)
    assert 1000 + 100 <= attempts <= 1000 + 110


def test_a_repeat_that_would_be_late_costs_no_budget() -> None:
    time = FakeTime()
    retries = Retries(RetryPolicy(budget_ratio=0, budget_burst=1), time.clock)
    with pytest.raises(Overloaded):
        retries.run(Refusing(time, 1, Overloaded("full", retry_after_s=9)), 1.0)
    assert retries.run(Refusing(time, 1), None) == "answer"


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base_s": -1}, {"budget_ratio": -0.1}])
def test_wrong_policies(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        RetryPolicy(**wrong)
