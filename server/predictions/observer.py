"""Takes what was answered from the event loop, and hands it to the prediction log and the drift monitor in a thread.

    service ──answered──▶ queue, bounded in rows and bytes ──four times a second──▶ thread ─┬─▶ prediction log
                          └ full: dropped, counted                                           └─▶ drift: a sample

The loop does no more than append to a deque: no lock, and nobody is woken. One thread reads, so each counter has one
writer.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from server.auth import caller_name
from server.predictions.records import Answered
from server.tensors import Array, InferRequest
from server.versions import LoadedModel

# A tick costs something in itself: at 6,000 requests a second, ticks of 0.02, 0.1 and 1 s take 18, 12 and 10 µs a
# request.
TICK_S: Final = 0.25
MAX_ROWS: Final = 65_536
MAX_BYTES: Final = 64 << 20
# Answers handled before the interpreter's lock is offered to the event loop: some 0.5 ms.
SLICE: Final = 128
# Of the answers of one tick, how many the drift monitor sees, and of how many it sees the pixels.
SAMPLED: Final = 50
SAMPLED_PIXELS: Final = 10

log = structlog.get_logger()


class Keeper(Protocol):
    """What keeps every answer; `server.predictions.log.PredictionLog` is one."""

    def keep(self, answers: Sequence[Answered]) -> None:
        """Takes answers in."""

    def lose(self, rows: int, reason: str) -> None:
        """Counts rows that it will not get."""

    def flush(self) -> None:
        """Writes what it has, as far as that is possible now."""

    def finish(self, within_s: float) -> None:
        """Writes what it has, trying again for so long."""


class Watcher(Protocol):
    """What looks at a sample of answers; `server.drift.DriftMonitor` is one."""

    def watch(self, answers: Sequence[Answered]) -> None:
        """Takes a sample in; `inputs` has the pixels of some of them."""


class Observer:
    """Sees every answer. `answered` belongs to the event loop; everything else happens in the observer's own thread.

    Args:
        keeper: Gets every answer; None where nothing is logged.
        watcher: Gets a sample; None where nothing is watched.
        max_rows: Rows that may wait for the thread.
        max_bytes: What their inputs may take.
    """

    def __init__(
        self, keeper: Keeper | None, watcher: Watcher | None, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._keeper = keeper
        self._watcher = watcher
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._queue: deque[tuple[Answered, int]] = deque()
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
        rows = len(images) or _count_rows(model, outputs)
        if self._budget and self._watcher is not None:
            self._budget -= 1
            pixels: Mapping[str, Array] = {}
            if self._pixel_budget and inputs:
                self._pixel_budget -= 1
                pixels = inputs
            self._samples.append(Answered(0.0, request, model, (), pixels, outputs, latency_s, rows))
        if self._keeper is None:
            return
        request.client = request.client or caller_name.get()
        n_bytes = sum(map(len, images)) if images else sum(array.nbytes for array in inputs.values())
        if (
            self.waiting_rows + rows > self._max_rows
            or n_bytes > self._max_bytes - self._given_bytes + self._taken_bytes
        ):
            self._dropped_rows += rows
            return
        self._given_rows += rows
        self._given_bytes += n_bytes
        # Decoded pixels are not kept: the picture's own bytes are what the log tells of.
        held = {} if images else inputs
        self._queue.append((Answered(time.time(), request, model, images, held, outputs, latency_s, rows), n_bytes))

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
            lost = self._dropped_rows - self._told_rows
            if lost:
                self._told_rows += lost
                self._keeper.lose(lost, "more was answered than can be taken in")
            self._keeper.flush()

    def _keep_slice(self, keeper: Keeper) -> None:
        taken = [self._queue.popleft() for _ in range(min(SLICE, len(self._queue)))]
        rows = sum(answered.rows for answered, _ in taken)
        try:
            keeper.keep([answered for answered, _ in taken])
        except Exception:
            keeper.lose(rows, "they could not be spelled")
            raise
        finally:
            self._taken_rows += rows
            self._taken_bytes += sum(n_bytes for _, n_bytes in taken)

    def _refill(self) -> None:
        self._budget, self._pixel_budget = SAMPLED, SAMPLED_PIXELS

    def _guard(self, step: Callable[[], None]) -> None:
        # Whatever goes wrong here must neither end the thread nor reach a request.
        try:
            step()
        except Exception:
            log.exception("the prediction log stumbled")


def _count_rows(model: LoadedModel, outputs: Mapping[str, Array]) -> int:
    spec = model.outputs[0]
    return outputs[spec.name].shape[0] if spec.batched else 1
