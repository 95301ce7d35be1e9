"""One bidirectional stream: many requests at once, each with its own answer.

    messages ──at most `window` at once──▶ a task for each ──as they are done, or in order──▶ answers

The window counts requests until their answers are written, so a client that does not read is not read from.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class AnswerStream(Generic[Request, Answer]):
    """The answers to one call's requests.

    Args:
        answer: Answers one request; it must not raise.
        window: Requests that are worked on at the same time.
        in_order: Whether answers come in the order of their requests, or as they are done.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]], window: int, *, in_order: bool = False) -> None:
        self._answer = answer
        self._in_order = in_order
        self._window = asyncio.Semaphore(window)
        self._next: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
        self._working: set[asyncio.Task[Answer]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._reading = True
        self.cut_short = False

    async def answer_all(self, requests: AsyncIterator[Request]) -> AsyncIterator[Answer]:
        """Reads, works and answers until there is nothing left.

        Args:
            requests: As they come.
        """
        self._reader = asyncio.create_task(self._read(requests))
        try:
            while (task := await self._next.get()) is not None:
                yield await task
                self._window.release()
            await self._reader
        finally:  # the client may have gone away
            tasks = [self._reader, *self._working]
            for left in tasks:
                left.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop_reading(self) -> None:
        """Takes nothing more; what was read is still answered."""
        if self._reader is not None and self._reading:
            self.cut_short = True
            self._reader.cancel()

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):  # by `stop_reading`
                await self._start_all(requests)
            self._reading = False
            if self._working:
                await asyncio.wait(self._working)
        finally:
            self._next.put_nowait(None)

    async def _start_all(self, requests: AsyncIterator[Request]) -> None:
        while True:
            await self._window.acquire()  # before reading, so that nothing is read that is not begun
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            task: asyncio.Task[Answer] = asyncio.ensure_future(self._work(request))
            self._working.add(task)
            if self._in_order:
                self._next.put_nowait(task)
            task.add_done_callback(self._done)

    async def _work(self, request: Request) -> Answer:
        return await self._answer(request)

    def _done(self, task: asyncio.Task[Answer]) -> None:
        self._working.discard(task)
        if not self._in_order and not task.cancelled():
            self._next.put_nowait(task)


def number_ids(request_id: str) -> Iterator[str]:
    """Names for the requests of a stream, in the order in which they came: the stream's own, then NAME.1, NAME.2, ...

    Args:
        request_id: The stream's.
    """
    yield request_id
    yield from (f"{request_id}.{number}" for number in itertools.count(1))
