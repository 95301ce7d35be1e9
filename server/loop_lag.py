"""How late the event loop is: what it holds up, every request of this process waits for.

    every 100 ms: due ──────late by──────▶ ran

A large lag means that something blocks the loop (a picture decoded on it, a collection of garbage) or that the core is
taken by somebody else.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric

from server.metrics_histogram import Histogram

# Ten timers a second cost a core some 0.02 %.
INTERVAL_S: Final = 0.1
# uvloop's timers are whole milliseconds, so what is below the first bound is no lag.
BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures the running loop from `start` to `stop`.

    Args:
        clock: Monotonic seconds. Not the loop's own, which uvloop reads once a turn and in whole milliseconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lags = Histogram(BUCKETS_S)
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins on the running loop."""
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(INTERVAL_S, self._tick, loop, self._clock() + INTERVAL_S)

    def stop(self) -> None:
        """Ends it."""
        if self._handle is not None:
            self._handle.cancel()

    def collect(self) -> Iterator[Metric]:
        """Its family, for `server.metrics.Metrics.sources`."""
        family = HistogramMetricFamily("shoal_loop_lag_seconds", "How late the event loop ran a timer.", labels=())
        self._lags.add_to(family, [])
        yield family

    def _tick(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        now_s = self._clock()
        self._lags.observe(max(now_s - due_s, 0.0))
        self._handle = loop.call_later(INTERVAL_S, self._tick, loop, now_s + INTERVAL_S)
