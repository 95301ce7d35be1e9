"""An event loop on which time passes only when everybody waits, and then at once.

    result = virtual_time.run(main())        # an hour of sleeps takes no time

A wait that nothing ends, or nothing within a day, is an error (`Deadlock`) instead of a test that hangs. No threads, no
sockets.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

A_DAY_S = 24 * 3600.0  # asyncio's own bound of one wait, so an infinite timer would come here for ever


class Deadlock(Exception):
    """Everybody waits, and no timer is set for today."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now_s


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout >= A_DAY_S:
            raise Deadlock("nothing is ready, and no timer is set for today: whoever waits would wait for ever")
        self._loop.now_s += timeout
        return []


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, and fails if a callback or a forgotten task raised."""
    errors: list[str] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: errors.append(str(context)))
        result = runner.run(main)
    assert not errors, errors
    return result


def now_s() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()
