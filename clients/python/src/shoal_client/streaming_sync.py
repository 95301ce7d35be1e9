"""The synchronous side of a `stream` call: lanes of gRPC streams around one `Flight`.

caller's thread: pictures ─▶ Flight ─▶ lanes ─▶ (a writer thread of gRPC's for each lane) ─▶ server
caller's thread: outcomes ◀─ Flight ◀─ events ◀─ (a reader thread for each lane) ◀──────── server

The caller's iterator is only ever advanced in the caller's thread, and only as far as the window has room.

gRPC's threads make this dearer than `streaming_async`: about 200 µs of CPU a picture against 110. A private event loop
would be no way out: with a second loop in a process, such as the caller's own, grpc.aio logs errors (grpc/grpc#25364).
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import grpc

from shoal_client._proto import classifier_pb2 as pb
from shoal_client.errors import ConnectionLost, InvalidInput, ShoalError
from shoal_client.flight import Flight, Item
from shoal_client.images import Image, read_image
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

    def __init__(self, call: Callable[[Iterator[bytes]], Any], events: "queue.SimpleQueue[Event]") -> None:
        self.flying: dict[str, Item] = {}
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._events = events
        self._call = call(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name="shoal-stream", daemon=True)
        self._reader.start()

    def send(self, item: Item) -> None:
        """Sends a picture's request.

        Args:
            item: The picture.
        """
        self.flying[str(item.position)] = item
        self._requests.put(item.data)

    def close(self) -> None:
        """Ends the stream in order where nothing flies any more, and at once otherwise."""
        self._requests.put(None)
        if self.flying:
            self._call.cancel()
        self._reader.join(CLOSE_WITHIN_S)
        self._call.cancel()
        self._reader.join()

    def _read(self) -> None:
        error: ShoalError | None = None
        try:
            for answer in self._call:
                self._events.put(Event(self, answer, None))
        except grpc.RpcError as failure:
            error = read_failure(failure)
        self._events.put(Event(self, None, error))


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
        open_call: Callable[[int, Iterator[bytes], float | None], Any],
        flight: Flight,
        options: Options,
        lanes: int,
    ) -> None:
        self._open_call = open_call
        self._flight = flight
        self._options = options
        self._lanes: list[Lane | None] = [None] * lanes
        self._turn = 0
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def run(self, images: Iterable[Image]) -> Generator[Outcome, None, None]:
        """Sends pictures and tells what becomes of them.

        Args:
            images: The pictures.

        Yields:
            Outcomes as they come.

        Raises:
            ShoalError: The call as a whole cannot go on.
        """
        source = iter(images)
        try:
            while not self._flight.done:
                yield from self._fill(source)
                if not self._flight.done:
                    yield from self._wait()
        finally:
            for lane in self._lanes:
                if lane is not None:
                    lane.close()

    def _fill(self, source: Iterator[Image]) -> Iterator[Outcome]:
        flight = self._flight
        while True:
            while (item := flight.launch()) is not None:
                self._lane().send(item)
            if not flight.wants_more():
                return
            try:
                image = next(source)
            except StopIteration:
                flight.ended = True
                return
            try:
                flight.accept(write_one(read_image(image), self._options, str(flight.accepted)))
            except InvalidInput as error:
                yield flight.skip(error)

    def _wait(self) -> Iterator[Outcome]:
        try:
            event = self._events.get(timeout=self._flight.wait_s())
        except queue.Empty:
            return
        yield from self._take(event)

    def _take(self, event: Event) -> Sequence[Outcome]:
        lane, answer, error = event
        if answer is None:
            return self._end(lane, error)
        item = lane.flying.pop(answer.id, None)
        if item is None:
            return ()
        outcome = self._flight.settle(item, read_stream_answer(answer))
        return () if outcome is None else (outcome,)

    def _end(self, lane: Lane, error: ShoalError | None) -> list[Outcome]:
        items = list(lane.flying.values())
        lane.flying.clear()
        self._lanes[self._lanes.index(lane)] = None
        lane.close()
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
