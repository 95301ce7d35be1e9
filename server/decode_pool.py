"""Where encoded pictures are decoded, so that the event loop never blocks on a photograph.

    pictures ──small by their headers?──▶ here and now, at most some 0.3 ms
             └──▶ predicted wait within the deadline? ──▶ threads, several pictures of one request at once ──▶ rows

Handing work to a thread and back costs 50 µs on the machine that the design was measured on; a 32 × 32 JPEG decodes in
66 µs and a 1000 × 750 one in 3.5 ms. Pillow lets go of the interpreter's lock while it decodes.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.cores import roam
from server.deadline import Deadline
from server.errors import DeadlineExceeded, Overloaded, UnsupportedImage
from server.images import ImageSpec, decode, header_pixels, load_formats

Encoded = bytes | memoryview

# Together at most 0.3 ms: 16 KiB and 65,536 pixels are a 256 × 256 JPEG (0.16 ms) or a 96 × 96 PNG of noise (0.22 ms).
INLINE_BYTES: Final = 16_384
INLINE_PIXELS: Final = 65_536
INLINE_IMAGES: Final = 4
_SMOOTHING: Final = 0.1  # of the running mean of a picture's decode time
_FIRST_GUESS_S: Final = 0.005  # until one was measured


@dataclass(frozen=True, slots=True)
class DecodeStatistics:
    """What a pool has done.

    Args:
        inline: Pictures decoded on the loop.
        pooled: Pictures decoded in threads.
        pending: Pictures that wait for a thread or are being decoded.
        refused: Requests refused because the wait for a thread was predicted to be too long.
        cost_s: Running mean of a picture's decode time in a thread.
    """

    inline: int
    pooled: int
    pending: int
    refused: int
    cost_s: float


class DecodePool:
    """Decodes the pictures of requests.

    Args:
        threads: How many threads decode large pictures.
        max_pixels: Pictures with more pixels by their header are refused.
        clock: Seconds on the deadlines' clock.
    """

    def __init__(self, threads: int, *, max_pixels: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._max_pixels = max_pixels
        self._clock = clock
        load_formats()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=roam)
        self._inline = self._pooled = self._pending = self._refused = 0
        self._cost_s = _FIRST_GUESS_S

    async def rows(
        self, images: Sequence[Encoded], spec: ImageSpec, deadline: Deadline | None = None
    ) -> NDArray[np.uint8]:
        """Decodes one request's pictures.

        Args:
            images: Encoded pictures, at least one.
            spec: What the model takes.
            deadline: Pictures that no thread has begun by then are not decoded.

        Returns:
            `uint8[n, height, width, channels]`, in the order of `images`.

        Raises:
            UnsupportedImage: One of them is no picture; the message names it.
            Overloaded: The threads have too much to do for the deadline.
            DeadlineExceeded: It passed before a thread was free.
        """
        rows = np.empty((len(images), *spec.shape), np.uint8)
        if _is_small(images):
            self._inline += len(images)
            self._decode_into(rows, images, spec)
            return rows
        self._admit(len(images), deadline)
        await self._decode_in_threads(rows, images, spec, deadline)
        return rows

    def statistics(self) -> DecodeStatistics:
        """What the pool has done so far."""
        return DecodeStatistics(self._inline, self._pooled, self._pending, self._refused, self._cost_s)

    def close(self) -> None:
        """Stops the threads; what none of them has begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _admit(self, count: int, deadline: Deadline | None) -> None:
        if deadline is None:
            return
        wait_s = self._cost_s * self._pending / self._threads
        if self._pending and wait_s > deadline.remaining_s(self._clock()):
            self._refused += 1
            raise Overloaded(
                f"{self._pending} pictures wait to be decoded, about {wait_s * 1e3:.0f} ms, so {count} more would be"
                " late; try again, send smaller pictures, or allow more time",
                retry_after_s=wait_s,
                reason="decode",
            )

    async def _decode_in_threads(
        self, rows: NDArray[np.uint8], images: Sequence[Encoded], spec: ImageSpec, deadline: Deadline | None
    ) -> None:
        loop = asyncio.get_running_loop()
        share = -(-len(images) // self._threads)
        jobs = []
        for start in range(0, len(images), share):
            part = images[start : start + share]
            job = loop.run_in_executor(
                self._executor, self._decode_into, rows[start : start + share], part, spec, start, deadline
            )
            self._pending += len(part)
            job.add_done_callback(partial(self._forget, len(part)))
            jobs.append(job)
        self._pooled += len(images)
        await asyncio.gather(*jobs)

    def _forget(self, count: int, _: asyncio.Future[None]) -> None:
        self._pending -= count

    def _decode_into(
        self,
        rows: NDArray[np.uint8],
        images: Sequence[Encoded],
        spec: ImageSpec,
        first: int = 0,
        deadline: Deadline | None = None,
    ) -> None:
        for offset, image in enumerate(images):
            started_s = self._clock()
            if deadline is not None and deadline.remaining_s(started_s) < 0:
                raise DeadlineExceeded("the deadline passed before the picture could be decoded")
            try:
                rows[offset] = decode(image, spec, max_pixels=self._max_pixels)
            except UnsupportedImage as error:
                raise UnsupportedImage(f"picture {first + offset + 1}: {error}") from error
            if deadline is not None:
                # A thread may overwrite what another one has just added; a mean can miss a sample.
                self._cost_s += _SMOOTHING * (self._clock() - started_s - self._cost_s)


def _is_small(images: Sequence[Encoded]) -> bool:
    """Whether decoding them takes no longer than the event loop may be held."""
    if len(images) > INLINE_IMAGES or sum(map(len, images)) > INLINE_BYTES:
        return False
    return sum(header_pixels(image) for image in images) <= INLINE_PIXELS
