"""Takes what was answered from the event loop, and hands it to the prediction log and the drift monitor in a thread.

    service ──answered──▶ queues, bounded ──32 at once──▶ groups ──four times a second──▶ thread ─┬─▶ prediction log
                          └ full: dropped, counted                                                └─▶ drift: a sample

The loop digests small inputs and appends to a deque: no lock, and nobody is woken. As soon as there are some, it writes
them one behind the other, while they are in the processor's cache: what some thousand answers consist of would be cold
when a thread came to it, and would have driven the model out. The thread does what is left at its tick, and all that
waits for a disk.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, Protocol, TypeVar

import structlog

from server.auth import caller_name
from server.predictions.answers import Answered, Entry, Lane, digests_at_once, lane_of
from server.predictions.blocks import Group, group_answers
from server.tensors import Array, InferRequest
from server.versions import LoadedModel

# A tick costs something in itself: at 6,000 requests a second, ticks of 0.02, 0.1 and 1 s take 18, 12 and 10 µs a
# request.
TICK_S: Final = 0.25
MAX_ROWS: Final = 65_536
MAX_BYTES: Final = 64 << 20
# Answers that are written at once, by the event loop: some 20 µs.
GROUP: Final = 32
# Groups, and answers whose inputs are still to be digested, that the thread handles before it offers the interpreter's
# lock to the event loop.
SLICE: Final = 16
# Of the answers of one tick, how many the drift monitor sees, and of how many it sees the pixels: no more once they are
# so many bytes. A photograph of 224 × 224 is one by itself; ten of them took 0.2 to 0.4 ms of each of 160 a second.
SAMPLED: Final = 50
SAMPLED_PIXELS: Final = 10
SAMPLED_PIXEL_BYTES: Final = 1 << 17

UNSPELLED: Final = "they could not be spelled"

T = TypeVar("T")

log = structlog.get_logger()


class Keeper(Protocol):
    """What keeps every answer; `server.predictions.log.PredictionLog` is one."""

    def keep(self, lane: Lane, group: Group) -> None:
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


class _Line(NamedTuple):
    """Answers of one version that wait to be written.

    Args:
        lane: What they have in common.
        queue: They; the event loop and the thread both take from it.
    """

    lane: Lane
    queue: deque[Entry]


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
        self._lines: dict[int, _Line] = {}
        self._groups: deque[tuple[Lane, Group]] = deque()
        self._late: deque[tuple[Lane, Answered, int]] = deque()
        self._samples: deque[Answered] = deque()
        self._given_rows = self._given_bytes = self._taken_rows = self._taken_bytes = 0
        self._dropped_rows = self._told_rows = 0
        self._failed: deque[int] = deque()  # rows of what could not be written
        self._budget = self._pixel_budget = self._pixel_bytes_budget = 0
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
        line = self._lines.get(id(model))
        if line is None or line.lane.source() is not model:  # a number may be used again once its object has gone
            line = self._add_line(model)
        lane, queue = line
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
        output = outputs.get(lane.output)
        queue.append((time.time(), request.request_id, client, request.protocol, latency_s, rows, digests, output))
        if len(queue) >= GROUP:
            self._group(line)

    def _group(self, line: _Line) -> None:
        """Writes what a line has one behind the other. Whatever goes wrong here must not reach a request."""
        entries = _take(line.queue, GROUP)
        if not entries:
            return
        try:
            self._groups += [(line.lane, group) for group in group_answers(entries)]
        except Exception:
            log.exception("the prediction log stumbled")
            self._failed.append(sum(entry[5] for entry in entries))

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
        if self._pixel_budget and self._pixel_bytes_budget > 0 and answered.inputs:
            self._pixel_budget -= 1
            self._pixel_bytes_budget -= sum(array.nbytes for array in answered.inputs.values())
        else:
            answered = answered._replace(inputs={})
        self._samples.append(answered)

    def _add_line(self, model: LoadedModel) -> _Line:
        for line in self._lines.values():
            self._group(line)
        kept = {number: line for number, line in self._lines.items() if line.lane.source() is not None}
        made = kept[id(model)] = _Line(lane_of(model), deque())
        self._lines = kept  # as a whole, because the thread may be going through it
        return made

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
            for line in tuple(self._lines.values()):
                self._group(line)
            while self._groups:
                self._keep_slice(self._keeper)
                time.sleep(0)
            while self._late:
                self._keep_late_slice(self._keeper)
                time.sleep(0)
            self._tell_lost(self._keeper)
            self._keeper.flush()

    def _tell_lost(self, keeper: Keeper) -> None:
        for rows in _take(self._failed, len(self._failed)):
            keeper.lose(rows, UNSPELLED)
            self._taken_rows += rows
        lost = self._dropped_rows - self._told_rows
        if lost:
            self._told_rows += lost
            keeper.lose(lost, "more was answered than can be taken in")

    def _keep_slice(self, keeper: Keeper) -> None:
        for lane, group in _take(self._groups, SLICE):
            with self._counted(keeper, group.rows):
                keeper.keep(lane, group)

    def _keep_late_slice(self, keeper: Keeper) -> None:
        by_lane: dict[Lane, list[Answered]] = {}
        for lane, answered, n_bytes in _take(self._late, SLICE):
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
            keeper.lose(rows, UNSPELLED)
        finally:
            self._taken_rows += rows

    def _refill(self) -> None:
        self._budget, self._pixel_budget, self._pixel_bytes_budget = SAMPLED, SAMPLED_PIXELS, SAMPLED_PIXEL_BYTES

    def _guard(self, step: Callable[[], None]) -> None:
        # Whatever goes wrong here must neither end the thread nor reach a request.
        try:
            step()
        except Exception:
            log.exception("the prediction log stumbled")


def _take(queue: deque[T], most: int) -> list[T]:
    """Some of a queue, the oldest first; somebody else may be taking from it too."""
    taken: list[T] = []
    with suppress(IndexError):
        while len(taken) < most:
            taken.append(queue.popleft())
    return taken
