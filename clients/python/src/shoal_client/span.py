"""The time of a whole `stream` call over HTTP, in which each picture is a call of its own."""

from collections.abc import Callable
from typing import Final

from shoal_client.errors import DeadlineExceeded, PermissionDenied, Unauthenticated, Unavailable
from shoal_client.results import Outcome

# What would meet every other picture, too.
FATAL: Final = (Unauthenticated, PermissionDenied, Unavailable)


class Span:
    """When a whole is over.

    Args:
        timeout_s: Seconds for all of it; None sets no limit.
        each_s: Seconds for one call; None sets no limit.
        now_s: A monotonic clock, in seconds.
    """

    def __init__(self, timeout_s: float | None, each_s: float | None, now_s: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._each_s = each_s
        self._now_s = now_s
        self._end_s = None if timeout_s is None else now_s() + timeout_s

    def next_s(self) -> float | None:
        """Seconds for the call that begins now; None: no limit.

        Raises:
            DeadlineExceeded: The whole is over.
        """
        if self._end_s is None:
            return self._each_s
        left_s = self._end_s - self._now_s()
        if left_s <= 0:
            raise DeadlineExceeded(f"not everything was answered within {self._timeout_s:g} s; allow more by timeout_s")
        return left_s if self._each_s is None else min(left_s, self._each_s)

    def check(self, outcome: Outcome) -> Outcome:
        """Ends the whole where nothing more can come of it.

        Args:
            outcome: What became of a picture.

        Raises:
            ShoalError: Every other picture would fail in the same way, or the time is over.
        """
        if isinstance(outcome.error, FATAL):
            raise outcome.error
        if outcome.error is not None:
            self.next_s()
        return outcome
