"""The asynchronous side of a `stream` call: lanes of gRPC streams around one `Flight`.

generator: pictures ─▶ Flight ─▶ lanes ─▶ (a writer task of gRPC's for each lane) ─▶ server
generator: outcomes ◀─ Flight ◀─ events ◀─ (a reader task for each lane) ──────── ◀─ server
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import grpc

from shoal_client._proto import classifier_pb2 as pb
from shoal_client.errors import ConnectionLost, InvalidInput, ShoalError
from shoal_client.flight import Flight, Item
from shoal_client.images import Image, Payload, is_file, read_image
from shoal_client.options import Options
from shoal_client.results import Outcome
from shoal_client.wire_grpc import read_failure, read_stream_answer, write_one

CLOSE_WITHIN_S: Final = 2.0


class Event(NamedTuple):
    """An answer on a lane, or the lane's end (`answer` is None) with its error, if it has one."""

    lane: "Lane"
    answer: pb.ClassifyResponse | None
    error: ShoalError | None


class Lane:
    """One `ClassifyStream` call with what flies on it.

    Args:
        call: Opens it, given what it will send.
        events: Where its reader puts what comes.
    """

    def __init__(self, call: Callable[[AsyncIterator[bytes]], Any], events: "asyncio.Queue[Event]") -> None:
        self.flying: dict[str, Item] = {}
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._events = events
        self._call = call(self._sending())
        self._reader = asyncio.create_task(self._read())

    def send(self, item: Item) -> None:
        """Sends a picture's request.

        Args:
            item: The picture.
        """
        self.flying[str(item.position)] = item
        self._requests.put_nowait(item.data)

    async def close(self) -> None:
        """Ends the stream in order where nothing flies any more, and at once otherwise."""
        self._requests.put_nowait(None)
        if self.flying:
            self._call.cancel()
        try:
            await asyncio.wait((self._reader,), timeout=CLOSE_WITHIN_S)
        finally:
            self._call.cancel()
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _sending(self) -> AsyncIterator[bytes]:
        while (data := await self._requests.get()) is not None:
            yield data

    async def _read(self) -> None:
        error: ShoalError | None = None
        try:
            async for answer in self._call:
                self._events.put_nowait(Event(self, answer, None))
        except grpc.RpcError as failure:
            error = read_failure(failure)
        self._events.put_nowait(Event(self, None, error))


class Streaming:
    """One `stream` call.

    Args:
        open_call: Opens a gRPC stream, given the lane's number, what it will send, and the seconds left.
        flight: Steers.
        options: Model, version and `top_k`.
        lanes: Streams at most; one is opened when it is first needed.
    """

    def __init__(
        self,
        open_call: Callable[[int, AsyncIterator[bytes], float | None], Any],
        flight: Flight,
        options: Options,
        lanes: int,
    ) -> None:
        self._open_call = open_call
        self._flight = flight
        self._options = options
        self._lanes: list[Lane | None] = [None] * lanes
        self._turn = 0
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def run(self, images: AsyncIterable[Image] | Iterable[Image]) -> AsyncGenerator[Outcome, None]:
        """Sends pictures and tells what becomes of them.

        Args:
            images: The pictures.

        Yields:
            Outcomes as they come.

        Raises:
            ShoalError: The call as a whole cannot go on.
        """
        source = walk(images)
        try:
            while not self._flight.done:
                for outcome in await self._fill(source):
                    yield outcome
                if not self._flight.done:
                    for outcome in await self._wait():
                        yield outcome
        finally:
            await asyncio.gather(*(lane.close() for lane in self._lanes if lane is not None))

    async def _fill(self, source: AsyncIterator[Image]) -> list[Outcome]:
        flight = self._flight
        skipped: list[Outcome] = []
        while not skipped:
            while (item := flight.launch()) is not None:
                self._lane().send(item)
            if not flight.wants_more():
                break
            try:
                image = await anext(source)
            except StopAsyncIteration:
                flight.ended = True
                break
            try:
                flight.accept(write_one(await read_image_async(image), self._options, str(flight.accepted)))
            except InvalidInput as error:
                skipped.append(flight.skip(error))
        return skipped

    async def _wait(self) -> Sequence[Outcome]:
        wait_s = self._flight.wait_s()
        if wait_s is None:
            return await self._take(await self._events.get())
        try:
            return await self._take(await asyncio.wait_for(self._events.get(), wait_s))
        except TimeoutError:
            return ()

    async def _take(self, event: Event) -> Sequence[Outcome]:
        lane, answer, error = event
        if answer is None:
            return await self._end(lane, error)
        item = lane.flying.pop(answer.id, None)
        if item is None:
            return ()
        outcome = self._flight.settle(item, read_stream_answer(answer))
        return () if outcome is None else (outcome,)

    async def _end(self, lane: Lane, error: ShoalError | None) -> list[Outcome]:
        items = list(lane.flying.values())
        lane.flying.clear()
        self._lanes[self._lanes.index(lane)] = None
        await lane.close()
        return self._flight.lose(
            items, error or ConnectionLost("the server ended the stream before everything was answered")
        )

    def _lane(self) -> Lane:
        """The next lane in turn, opened where it is not."""
        number = self._turn = (self._turn + 1) % len(self._lanes)
        lane = self._lanes[number]
        if lane is None:
            left_s = self._flight.left_s()
            lane = self._lanes[number] = Lane(lambda requests: self._open_call(number, requests, left_s), self._events)
        return lane


async def read_image_async(image: Image) -> Payload:
    """Reads a picture; a file in a thread, so that the loop goes on.

    Args:
        image: As `read_image` takes it.

    Raises:
        InvalidInput: It is no picture, or a file that cannot be read.
    """
    return await asyncio.to_thread(read_image, image) if is_file(image) else read_image(image)


async def walk(images: AsyncIterable[Image] | Iterable[Image]) -> AsyncIterator[Image]:
    """Goes over either kind of iterable.

    Args:
        images: The pictures.

    Yields:
        Each of them.
    """
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
