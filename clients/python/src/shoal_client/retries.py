"""When a refused call is made again: after a random wait, within its deadline, and out of a budget that answers fill.

    refused ─▶ attempts left? ─▶ would the wait end in time? ─▶ budget left? ─▶ wait ─▶ again
                    └──────────────────────┴─────────────────────────┴─ no ─▶ the refusal is raised

The wait is "full jitter": uniform from 0 to a bound that doubles (M. Brooker, "Exponential Backoff and Jitter", 2015),
on top of what the server advises. The budget keeps clients from multiplying an overload: with a ratio of 0.1, a server
that refuses everything sees at most a tenth more calls than were made (B. Beyer et al., "Site Reliability Engineering",
2016, chapter 21).
"""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from shoal_client.errors import DeadlineExceeded, Refused

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How refusals are met.

    Args:
        attempts: Times that one call is made at most; 1 never repeats it.
        base_s: The first wait is at most so long, in seconds; each later one at most twice the one before.
        cap_s: No wait's random part is longer, in seconds.
        budget_ratio: How many repeats each call adds to the budget that all calls of a client share.
        budget_burst: Repeats that are allowed at once.
        patience_s: How long `stream` and `classify_many` over gRPC go on without one answer, in seconds. They have no
            budget: a refusal halves their window instead.
    """

    attempts: int = 4
    base_s: float = 0.05
    cap_s: float = 2.0
    budget_ratio: float = 0.1
    budget_burst: float = 10.0
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: One is out of its range.
        """
        if self.attempts < 1:
            raise ValueError(f"expected attempts of at least 1, received {self.attempts}; 1 never repeats a call")
        if min(self.base_s, self.cap_s, self.budget_ratio, self.budget_burst, self.patience_s) < 0:
            raise ValueError(f"expected no negative value, received {self}")

    def delay_s(self, repeats: int, retry_after_s: float, draw: float) -> float:
        """How long to wait before the next attempt.

        Args:
            repeats: Attempts that were refused before this refusal.
            retry_after_s: The server's advice, in seconds.
            draw: Random, uniform in 0..1.
        """
        bound_s = min(self.cap_s, self.base_s * 2.0 ** min(repeats, 30))
        return retry_after_s + draw * bound_s


@dataclass(frozen=True)
class Clock:
    """Time and chance, so that tests need neither.

    Args:
        now_s: A monotonic clock, in seconds.
        sleep: Waits so many seconds.
        sleep_async: The same inside an event loop.
        draw: Uniform in 0..1.
    """

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random.random


class Retries:
    """A client's policy with the budget that its calls share. May be used from several threads.

    Args:
        policy: The rules.
        clock: Time and chance.
    """

    def __init__(self, policy: RetryPolicy, clock: Clock) -> None:
        self.policy = policy
        self.clock = clock
        self._lock = threading.Lock()
        self._budget = policy.budget_burst

    def run(self, attempt: Callable[[float | None], T], timeout_s: float | None) -> T:
        """Makes a call, again and again where that is allowed.

        Args:
            attempt: Makes it once, given the seconds that are left.
            timeout_s: Seconds for all attempts together; None sets no limit.

        Raises:
            ShoalError: What the last attempt raised, or the time is over.
        """
        call = _Call(self, timeout_s)
        while True:
            try:
                return attempt(call.left_s())
            except Refused as refusal:
                delay_s = call.delay_s(refusal)
            self.clock.sleep(delay_s)

    async def run_async(self, attempt: Callable[[float | None], Awaitable[T]], timeout_s: float | None) -> T:
        """The same inside an event loop.

        Args:
            attempt: Makes the call once, given the seconds that are left.
            timeout_s: Seconds for all attempts together; None sets no limit.

        Raises:
            ShoalError: What the last attempt raised, or the time is over.
        """
        call = _Call(self, timeout_s)
        while True:
            try:
                return await attempt(call.left_s())
            except Refused as refusal:
                delay_s = call.delay_s(refusal)
            await self.clock.sleep_async(delay_s)

    def earn(self) -> None:
        """Adds a call's share to the budget."""
        with self._lock:
            self._budget = min(self.policy.budget_burst, self._budget + self.policy.budget_ratio)

    def spend(self) -> bool:
        """Takes one repeat out of the budget, if there is one."""
        with self._lock:
            if self._budget < 1:
                return False
            self._budget -= 1
            return True


class _Call:
    """One call's attempts."""

    def __init__(self, retries: Retries, timeout_s: float | None) -> None:
        self._retries = retries
        self._timeout_s = timeout_s
        self._repeats = 0
        self._end_s = None if timeout_s is None else retries.clock.now_s() + timeout_s
        retries.earn()

    def left_s(self) -> float | None:
        if self._end_s is None:
            return None
        left_s = self._end_s - self._retries.clock.now_s()
        if left_s <= 0:
            raise DeadlineExceeded(f"no answer within {self._timeout_s:g} s; allow more time by timeout_s")
        return left_s

    def delay_s(self, refusal: Refused) -> float:
        policy, clock = self._retries.policy, self._retries.clock
        if self._repeats + 1 >= policy.attempts:
            raise refusal
        delay_s = policy.delay_s(self._repeats, refusal.retry_after_s, clock.draw())
        late = self._end_s is not None and clock.now_s() + delay_s >= self._end_s
        if late or not self._retries.spend():
            raise refusal
        self._repeats += 1
        return delay_s
