"""Reads again and again what feedback says of each version, in a thread of its own: a database may take its time."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from server.predictions.storage import StorageAway

REFRESH_S: Final = 2.0

log = structlog.get_logger()


class Refresher:
    """See the module.

    Args:
        refresh: Reads; raises StorageAway where it cannot now.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live accuracy", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread once it has done what it is at."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(REFRESH_S):
            try:
                self._refresh()
            except StorageAway as error:  # the writer says so too, and once
                log.debug("live accuracy was not read", reason=str(error))
            except Exception:
                log.exception("live accuracy was not read")
