"""A progress bar for long work, on a terminal only, with nothing but the standard library."""

import time
from collections.abc import Callable
from typing import Final, TextIO

WIDTH: Final = 24
EVERY_S: Final = 0.1


class Progress:
    """Counts pictures on one line that is written over again and again.

    Args:
        total: Pictures in all.
        stream: Where the line goes; nothing is written where it is no terminal.
        now_s: A monotonic clock, in seconds.
    """

    def __init__(self, total: int, stream: TextIO, now_s: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._stream = stream
        self._now_s = now_s
        self._shown = stream.isatty()
        self._started_s = now_s()
        self._drawn_s = float("-inf")
        self._done = self._failed = 0

    def advance(self, *, failed: bool) -> None:
        """Counts one more.

        Args:
            failed: Whether it has no answer.
        """
        self._done += 1
        self._failed += failed
        now_s = self._now_s()
        if self._shown and now_s - self._drawn_s >= EVERY_S:
            self._drawn_s = now_s
            self._stream.write(f"\r{self.line(now_s)}\x1b[K")
            self._stream.flush()

    def finish(self) -> None:
        """Removes the line."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def line(self, now_s: float) -> str:
        """The line as it is now.

        Args:
            now_s: The present.
        """
        rate = self._done / max(now_s - self._started_s, 1e-9)
        filled = WIDTH * self._done // max(self._total, 1)
        left_s = (self._total - self._done) / rate if rate else 0.0
        failed = f", {self._failed} failed" if self._failed else ""
        bar = "█" * filled + "░" * (WIDTH - filled)
        return f"{bar} {self._done}/{self._total} pictures, {rate:,.0f}/s, {left_s:.0f} s left{failed}"
