"""Does things when the processor has nothing better to do.

    writer ──work──▶ a thread at the lowest priority (SCHED_IDLE): at once on an idle machine, in the gaps between
                     requests on a busy one, 0.3 % of the time on a saturated one

At the ordinary priority the writer had its full share of a core for some milliseconds whenever there was a gap, which
cost a busy server a twentieth of its throughput. The price: on a saturated core whoever waits for the database's lock,
as feedback may, waits for some tenths of a second.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

LEAST_NICE: Final = 19


class Leisure:
    """See the module."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "leisure", _lower_priority)

    def do(self, work: Callable[[], bool]) -> bool:
        """Does something in nobody's way, and gives its result.

        Args:
            work: What.
        """
        return self._thread.submit(work).result()

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()


def _lower_priority() -> None:
    """On Linux each thread has a priority of its own, so the process's others keep theirs."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not on this system, or not allowed here: the next best
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_NICE)
