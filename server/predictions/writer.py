"""`python -m server.predictions.writer`: the process that takes a spool to its database.

    on its standard input, as JSON: `Orders`                    a descriptor passed on to it: writer.lock
    while any worker has servers.lock:
        Recorder.step: some hundred rows, when a core has nothing else to do
        ... at the ordinary priority where somebody is in a hurry, or much waits

Requests come first: on a busy core it gets what they leave (see `leisure`); what that is not enough for waits on disk.

It ends by itself once no worker uses the folder and all is written, or nothing can be. Signals that stop a server are
none of its business: the workers it serves have answers to hand over then. Whoever starts it holds them back until it
has come to ignore them.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from server.cores import keep_to
from server.errors import StartupError
from server.logs import set_up_logs
from server.predictions.database import read_url
from server.predictions.leisure import Leisure
from server.predictions.orders import Orders
from server.predictions.recorder import Recorder
from server.predictions.spool import HURRY, SERVERS, is_locked, waiting_bytes
from server.predictions.storage import StorageAway
from server.predictions.store import PredictionStore

POLL_S: Final = 0.1
AFTER_FAULT_S: Final = 1.0
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = structlog.get_logger()


def run(
    step: Callable[[], bool],
    is_due: Callable[[], bool],
    in_use: Callable[[], bool],
    at_leisure: Callable[[Callable[[], bool]], bool],
) -> None:
    """Works as long as anybody uses the spool, and then until nothing can be done any more.

    Args:
        step: Does a little, and tells whether there may be more to do at once.
        is_due: Whether that cannot wait.
        in_use: Whether anybody uses the spool.
        at_leisure: Takes a step that can wait.
    """

    def take_step() -> bool:
        try:
            return step()
        except Exception:
            log.exception("the prediction log's writer stumbled")
            time.sleep(AFTER_FAULT_S)
            return False

    while in_use():
        if not (take_step() if is_due() else at_leisure(take_step)):
            time.sleep(POLL_S)
    while take_step():
        pass


def main() -> None:
    """Does what standard input says."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    orders = Orders(**json.load(sys.stdin))
    keep_to(list(orders.cores))
    set_up_logs(orders.log_level, orders.log_format)
    folder = Path(orders.folder)
    store = PredictionStore(read_url(orders.url), window_rows=1)
    with suppress(StorageAway, StartupError):  # the first step tells of it
        store.open()  # here, because at leisure it would take half a minute on a saturated core
    leisure = Leisure()
    recorder = Recorder(folder, store, retention_days=orders.retention_days)

    def is_due() -> bool:
        return is_locked(folder / HURRY) or waiting_bytes(folder) > orders.hurry_bytes

    run(recorder.step, is_due, lambda: is_locked(folder / SERVERS), leisure.do)
    recorder.close()
    store.close()
    leisure.close()


if __name__ == "__main__":
    main()
