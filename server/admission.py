"""Says at once whether a request can be answered in time. What cannot is refused now, not timed out later.

    wait predicted by the batcher × safety + own run ≤ time left → in; else Overloaded(retry_after_s)

The wait is a prediction over batches that have not run yet, so it gets a safety factor. That costs no throughput: a
queue of half the budget keeps an engine just as busy as one of the whole budget.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from server.deadline import Deadline
from server.errors import DeadlineExceeded, Overloaded

# At twice the capacity and with batch times of exponential noise, the slowest hundredth of the admitted is answered in
# 168 of 200 ms with 2.0 and in 208 ms with 1.5; goodput is whole with both (docs/architecture/batcher.md).
SAFETY: Final = 2.0
MIN_RETRY_S: Final = 0.05


class Queue(Protocol):
    """What admission asks of a batcher."""

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""

    def predicted_wait_s(self, rows: int, *, priority: int = 0) -> float:
        """Seconds until the last batch with rows of a request that came now would start."""

    def predicted_run_s(self, rows: int) -> float:
        """Seconds that this batch would take."""


@dataclass(slots=True)
class Admission:
    """Decides, and counts its decisions.

    Args:
        safety: The predicted wait times this must still be in time.
        admitted: Requests let in so far.
        refused: Requests refused so far.
    """

    safety: float = SAFETY
    admitted: int = 0
    refused: int = 0

    def admit(self, batcher: Queue, rows: int, deadline: Deadline | None, now_s: float, *, priority: int = 0) -> None:
        """Lets a request in, or raises.

        An idle batcher takes any request whose deadline has not passed, however dear its run is expected to be: a
        measured cost that is too high would otherwise refuse every request that could correct it.

        Args:
            batcher: Where the request would wait.
            rows: Its rows.
            deadline: When its answer stops being worth anything; None lets it in.
            now_s: The present, on the deadline's clock.
            priority: Lower runs earlier.

        Raises:
            DeadlineExceeded: The deadline has passed already.
            Overloaded: The answer would come too late.
        """
        if deadline is not None:
            left_s = deadline.remaining_s(now_s)
            if left_s <= 0:
                raise DeadlineExceeded(f"the deadline passed {-1000 * left_s:.0f} ms ago; allow more time")
            if not batcher.idle:
                self._refuse_if_late(batcher, rows, left_s, priority)
        self.admitted += 1

    def _refuse_if_late(self, batcher: Queue, rows: int, left_s: float, priority: int) -> None:
        wait_s = batcher.predicted_wait_s(rows, priority=priority)
        late_s = wait_s * self.safety + batcher.predicted_run_s(rows) - left_s
        if late_s <= 0:
            return
        self.refused += 1
        raise Overloaded(
            f"overloaded: expected an answer within {1000 * left_s:.0f} ms, the wait alone would be"
            f" {1000 * wait_s:.0f} ms; send the request again later",
            retry_after_s=max(late_s / self.safety, MIN_RETRY_S),
        )
