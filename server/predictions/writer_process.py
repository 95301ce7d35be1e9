"""Starts the writer where there is none. Every worker looks, four times a second; the lock lets one of them do it.

The locked descriptor is passed on to the new process, so there is no moment at which two of them could run, and the
lock is free again the moment that it ends, however it ends.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import structlog

from server.predictions.orders import Orders
from server.predictions.spool import WRITER, try_lock

BACKOFF_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0)
HEALTHY_AFTER_S: Final = 30.0
MODULE: Final = "server.predictions.writer"
STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # `server.predictions.writer` ignores them

log = structlog.get_logger()


class WriterProcess:
    """The writer of a spool, as one worker sees it.

    Args:
        orders: What to tell it.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, orders: Orders, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._orders = orders
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = self._try_at_s = 0.0
        self._failures = 0

    def ensure(self) -> None:
        """Starts it, where nobody has."""
        self._reap()
        if self._process is not None or self._clock() < self._try_at_s:
            return
        descriptor = try_lock(Path(self._orders.folder) / WRITER)
        if descriptor is None:
            return
        try:
            self._start(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Lets go of it. It ends by itself; where it has not yet, it serves others, or goes on to the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # it is left to whoever adopts it, and that is no fault to warn of
        self._process = None

    def _start(self, descriptor: int) -> None:
        self._started_s = self._clock()
        # The new process inherits what this thread holds back: it begins to ignore these only when Python has started.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self._process = self._spawn(descriptor)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        assert self._process.stdin is not None
        with self._process.stdin as orders:  # not by its command line, which everybody may read: there is a password
            orders.write(json.dumps(asdict(self._orders)).encode())

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  this Python, and a module of ours
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            # Not a session of its own: with autogroups that would be a share of the processor of its own.
            process_group=0,
        )

    def _reap(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        if self._clock() - self._started_s > HEALTHY_AFTER_S:
            self._failures = 0
        delay_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        self._try_at_s = self._clock() + delay_s
        log.error("the prediction log's writer ended", code=self._process.returncode, restart_in_s=delay_s)
        self._process = None
