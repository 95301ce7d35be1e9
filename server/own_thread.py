"""A thread that runs callables one after another and answers to the event loop.

call(function) ──SimpleQueue──▶ thread ──call_soon_threadsafe──▶ the future that `call` returned
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from server.cores import roam
from server.errors import InferenceFailed

T = TypeVar("T")


class OwnThread:
    """Runs callables in the order of the calls, off the event loop.

    `concurrent.futures` would do the same with a lock, a condition and two futures for each call; `python -m
    benchmarks.batcher` measures both.

    Args:
        name: Shown by debuggers and `top -H`.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._pending = 0  # calls that the event loop has not been told the end of
        self.stopped = False
        # A daemon, so that the second signal of a stop exits at once even in the middle of a batch.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits on the thread."""
        return not self._pending

    def call(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        """Has a function called on the thread.

        Returns:
            Its result or exception, on the event loop. Cancelled before its turn comes, the call is not made.

        Raises:
            InferenceFailed: The thread has been told to stop.
        """
        if self.stopped:
            raise InferenceFailed("the model was closed while this request was on its way; send it again")
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending += 1
        self._jobs.put((function, future))
        return future

    def stop(self) -> None:
        """Ends the thread once every call already made is done."""
        self.stopped = True
        self._jobs.put(None)

    def _work(self) -> None:
        roam()
        while (job := self._jobs.get()) is not None:
            function, future = job
            try:
                outcome: Any = None if future.cancelled() else function()
            except BaseException as error:  # noqa: BLE001 the waiter gets it, whatever it is; the thread goes on
                outcome = _Raised(error)
            try:
                self._loop.call_soon_threadsafe(self._settle, future, outcome)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del job, function, future, outcome  # or the last batch would be kept alive until the next one

    def _settle(self, future: "asyncio.Future[Any]", outcome: object) -> None:
        self._pending -= 1
        if future.done():
            return
        if isinstance(outcome, _Raised):
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome)


class _Raised:
    """Tells an exception raised from a value returned."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
