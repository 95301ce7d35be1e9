"""Takes what was answered from the event loop, and hands it to the prediction log and the drift monitor in a thread.

    service ──answered──▶ queues, bounded ──four times a second──▶ thread ─┬─▶ prediction log
                          └ full: dropped, counted                         └─▶ drift: a sample

The loop digests small inputs and appends to a deque: no lock, and nobody is woken. One thread reads, so each counter
has one writer.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import structlog

from server.auth import caller_name
from server.predictions.answers import Answered, Entry, Lane, digests_at_once, lane_of
from server.tensors import Array, InferRequest
from server.versions import LoadedModel

# A tick costs something in itself: at 6,000 requests a second, ticks of 0.02, 0.1 and 1 s take 18, 12 and 10 µs a
# request.
TICK_S: Final = 0.25
MAX_ROWS: Final = 65_536
MAX_BYTES: Final = 64 << 20
# Answers handled before the interpreter's lock is offered to the event loop: some 0.5 ms.
SLICE: Final = 256
# Of those whose inputs are still to be digested: they are large.
LATE_SLICE: Final = 16
# Of the answers of one tick, how many the drift monitor sees, and of how many it sees the pixels.
SAMPLED: Final = 50
SAMPLED_PIXELS: Final = 10

T = TypeVar("T")

log = structlog.get_logger()


class Keeper(Protocol):
    """What keeps every answer; `server.predictions.log.PredictionLog` is one."""

    def keep(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Takes answers of one version in."""

    def keep_late(self, lane: Lane, answers: Sequence[Answered]) -> None:
        """Takes answers of one version in whose inputs are still to be digested."""

    def lose(self, rows: int, reason: str) -> None:
        """Counts rows that it will not get."""

    def flush(self) -> None:
        """Puts what it has where it is safe."""

    def finish(self, within_s: float) -> None:
        """Sees to it that all is written, for so long at most."""


class Watcher(Protocol):
    """What looks at a sample of answers; `server.drift.DriftMonitor` is one."""

    def watch(self, answers: Sequence[Answered]) -> None:
        """Takes a sample in; `inputs` has the pixels of some of them."""


class Observer:
    """Sees every answer. `answered` belongs to the event loop; everything else happens in the observer's own thread.

    Args:
        keeper: Gets every answer; None where nothing is logged.
        watcher: Gets a sample; None where nothing is watched.
        keep_inputs: Whether the keeper wants what was sent, not its digest alone.
        max_rows: Rows that may wait for the thread.
        max_bytes: What inputs that are still to be digested may take.
    """

    def __init__(
        self,
        keeper: Keeper | None,
        watcher: Watcher | None,
        *,
        keep_inputs: bool = False,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._keeper = keeper
        self._watcher = watcher
        self._keep_inputs = keep_inputs
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lanes: dict[int, Lane] = {}
        self._queue: deque[tuple[Lane, Entry]] = deque()
        self._late: deque[tuple[Lane, Answered, int]] = deque()
        self._samples: deque[Answered] = deque()
        self._given_rows = self._given_bytes = self._taken_rows = self._taken_bytes = 0
        self._dropped_rows = self._told_rows = 0
        self._budget = self._pixel_budget = 0
        self._stop = threading.Event()
        self._within_s = 0.0
        self._thread = threading.Thread(target=self._work, name="observer", daemon=True)

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the thread."""
        return self._given_rows - self._taken_rows

    def start(self) -> None:
        """Starts the thread."""
        self._refill()
        self._thread.start()

    async def close(self, within_s: float) -> None:
        """Has everything written that was answered before, and ends the thread.

        Args:
            within_s: How long a database that does not answer is waited for, in seconds.
        """
        self._within_s = within_s
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    def answered(
        self,
        request: InferRequest,
        model: LoadedModel,
        images: Sequence[bytes | memoryview],
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        latency_s: float,
    ) -> None:
        """Takes note of an answer.

        Args:
            request: What was asked.
            model: The version that answered.
            images: Its encoded pictures; empty where it brought tensors or numbers.
            inputs: What the graph was given, by name; empty where the answer came from the cache.
            outputs: Every output of the version, by name; nobody may change them any more.
            latency_s: From the decoded request to its answer.
        """
        if self._keeper is None and not self._budget:  # most answers, where nothing is logged
            return
        lane = self._lanes.get(id(model))
        if lane is None or lane.source() is not model:  # a number may be used again once its object has gone
            lane = self._add_lane(model)
        rows = len(images) or lane.count_rows(outputs)
        if self._budget and self._watcher is not None:
            self._sample(Answered(0.0, request, model, (), inputs, outputs, latency_s, rows))
        if self._keeper is None:
            return
        if self._given_rows - self._taken_rows + rows > self._max_rows:
            self._dropped_rows += rows
            return
        digests = None if self._keep_inputs else digests_at_once(images, inputs, rows)
        client = request.client or caller_name.get()
        if digests is None:
            request.client = client
            # Decoded pixels are not kept: the picture's own bytes are what the log tells of.
            held = {} if images else inputs
            self._wait(lane, Answered(time.time(), request, model, images, held, outputs, latency_s, rows))
            return
        self._given_rows += rows
        entry = (
            time.time(),
            request.request_id,
            client,
            request.protocol,
            latency_s,
            rows,
            digests,
            outputs.get(lane.output),
        )
        self._queue.append((lane, entry))

    def _wait(self, lane: Lane, answered: Answered) -> None:
        images, inputs = answered.images, answered.inputs
        n_bytes = sum(map(len, images)) if images else sum(array.nbytes for array in inputs.values())
        if n_bytes > self._max_bytes - self._given_bytes + self._taken_bytes:
            self._dropped_rows += answered.rows
            return
        self._given_rows += answered.rows
        self._given_bytes += n_bytes
        self._late.append((lane, answered, n_bytes))

    def _sample(self, answered: Answered) -> None:
        self._budget -= 1
        if self._pixel_budget and answered.inputs:
            self._pixel_budget -= 1
        else:
            answered = answered._replace(inputs={})
        self._samples.append(answered)

    def _add_lane(self, model: LoadedModel) -> Lane:
        self._lanes = {number: lane for number, lane in self._lanes.items() if lane.source() is not None}
        lane = self._lanes[id(model)] = lane_of(model)
        return lane

    # ---- in the thread ----

    def _work(self) -> None:
        while not self._stop.wait(TICK_S):
            self._guard(self._tick)
        self._guard(self._tick)
        if self._keeper is not None:
            keeper = self._keeper
            self._guard(lambda: keeper.finish(self._within_s))

    def _tick(self) -> None:
        if self._watcher is not None:
            samples = [self._samples.popleft() for _ in range(len(self._samples))]
            watcher = self._watcher
            self._guard(lambda: watcher.watch(samples))  # what it stumbles over, the log goes past
            self._refill()
        if self._keeper is not None:
            while self._queue:
                self._keep_slice(self._keeper)
                time.sleep(0)
            while self._late:
                self._keep_late_slice(self._keeper)
                time.sleep(0)
            lost = self._dropped_rows - self._told_rows
            if lost:
                self._told_rows += lost
                self._keeper.lose(lost, "more was answered than can be taken in")
            self._keeper.flush()

    def _keep_slice(self, keeper: Keeper) -> None:
        by_lane: dict[Lane, list[Entry]] = {}
        for lane, entry in _take(self._queue, SLICE):
            by_lane.setdefault(lane, []).append(entry)
        for lane, entries in by_lane.items():
            with self._counted(keeper, sum([entry[5] for entry in entries])):
                keeper.keep(lane, entries)

    def _keep_late_slice(self, keeper: Keeper) -> None:
        by_lane: dict[Lane, list[Answered]] = {}
        for lane, answered, n_bytes in _take(self._late, LATE_SLICE):
            by_lane.setdefault(lane, []).append(answered)
            self._taken_bytes += n_bytes
        for lane, answers in by_lane.items():
            with self._counted(keeper, sum(answered.rows for answered in answers)):
                keeper.keep_late(lane, answers)

    @contextmanager
    def _counted(self, keeper: Keeper, rows: int) -> Iterator[None]:
        """What goes wrong costs these rows, and no others."""
        try:
            yield
        except Exception:
            log.exception("the prediction log stumbled")
            keeper.lose(rows, "they could not be spelled")
        finally:
            self._taken_rows += rows

    def _refill(self) -> None:
        self._budget, self._pixel_budget = SAMPLED, SAMPLED_PIXELS

    def _guard(self, step: Callable[[], None]) -> None:
        # Whatever goes wrong here must neither end the thread nor reach a request.
        try:
            step()
        except Exception:
            log.exception("the prediction log stumbled")


def _take(queue: deque[T], most: int) -> list[T]:
    return [queue.popleft() for _ in range(min(most, len(queue)))]
