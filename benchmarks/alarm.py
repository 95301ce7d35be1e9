"""Waits to a twentieth of a millisecond inside an event loop, whose own timers are no finer than a millisecond.

A timer of Linux's (`timerfd_create(2)`) is a file that becomes readable when it is due; Python has it from 3.13 on.
"""

import asyncio
import ctypes
import os
from types import TracebackType
from typing import Final, Self

_MONOTONIC: Final = 1
_NONBLOCK: Final = 0o4000
_ABSOLUTE: Final = 1
_NS: Final = 1_000_000_000


class _Setting(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """A timer of the running event loop, for one waiter; closed at the end of a `with` block."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._loop.add_reader(self._file, self._ring)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)

    async def wait_until(self, when_s: float) -> None:
        """Returns when `time.monotonic()` has reached a time, which may be past already."""
        at_ns = max(1, int(when_s * _NS))
        setting = _Setting(0, 0, at_ns // _NS, at_ns % _NS)
        self._waiting = self._loop.create_future()
        if self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(setting), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiting

    def _ring(self) -> None:
        os.read(self._file, 8)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
