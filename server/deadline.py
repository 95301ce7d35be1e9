"""When an answer stops being worth anything: one monotonic value, made by the transport and passed down.

It is enforced while a request waits as well as while it runs, so a late request costs the model nothing.
"""

import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A point on the monotonic clock.

    Args:
        at_s: Seconds on `time.monotonic`.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float, *, now_s: float | None = None) -> Self:
        """The deadline `seconds` from now.

        Args:
            seconds: The budget, in seconds.
            now_s: The present on the same clock, where the caller has just read it.
        """
        return cls((time.monotonic() if now_s is None else now_s) + seconds)

    def remaining_s(self, now_s: float) -> float:
        """Seconds left at `now_s`; negative once it has passed."""
        return self.at_s - now_s
