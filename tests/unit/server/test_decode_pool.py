import asyncio
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server import decode_pool
from server.deadline import Deadline
from server.decode_pool import DecodePool
from server.errors import DeadlineExceeded, Overloaded, UnsupportedImage
from server.images import ImageSpec

SPEC = ImageSpec(4, 4, 1)


def picture(level: int, size: int = 4, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size), level).save(buffer, form)
    return buffer.getvalue()


LARGE = 300  # above the pixels that are decoded on the loop


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    pool = DecodePool(2, max_pixels=1_000_000)
    yield pool
    pool.close()


def levels(rows: Any) -> list[int]:
    return [int(row[0, 0, 0]) for row in rows]


def test_small_pictures_are_decoded_at_once(pool: DecodePool) -> None:
    rows = asyncio.run(pool.rows([picture(1), picture(2), picture(3, form="JPEG")], SPEC))
    assert rows.shape == (3, 4, 4, 1)
    assert rows.dtype == np.uint8
    assert levels(rows) == [1, 2, 3]
    statistics = pool.statistics()
    assert (statistics.inline, statistics.pooled, statistics.pending) == (3, 0, 0)


@pytest.mark.parametrize(
    "images",
    [
        [picture(7, LARGE)],  # many pixels in few bytes
        [picture(7, form="BMP")],  # pixels unknown without opening it
        [picture(level) for level in range(5)],  # many pictures
        [picture(7) + bytes(20_000)],  # many bytes
    ],
)
def test_what_may_take_long_goes_to_threads(pool: DecodePool, images: list[bytes]) -> None:
    rows = asyncio.run(pool.rows(images, SPEC))
    assert len(rows) == len(images)
    assert pool.statistics().pooled == len(images)
    assert pool.statistics().inline == 0


def test_its_threads_do_not_keep_to_the_event_loops_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    roaming: list[str] = []
    monkeypatch.setattr(decode_pool, "roam", lambda: roaming.append(threading.current_thread().name))
    pool = DecodePool(1, max_pixels=1_000_000)
    asyncio.run(pool.rows([picture(7, LARGE)], SPEC))
    pool.close()
    assert roaming == ["decode_0"]


def test_many_pictures_keep_their_order_over_threads(pool: DecodePool) -> None:
    expected = list(range(0, 250, 10))
    rows = asyncio.run(pool.rows([picture(level, LARGE) for level in expected], SPEC, Deadline.after(60)))
    assert levels(rows) == expected
    assert pool.statistics().pending == 0
    assert pool.statistics().cost_s != decode_pool._FIRST_GUESS_S


@pytest.mark.parametrize("size", [4, LARGE])
def test_a_bad_picture_is_named_by_its_place(pool: DecodePool, size: int) -> None:
    images = [picture(1, size), picture(2, size), b"no picture"]
    with pytest.raises(UnsupportedImage, match="picture 3: expected a JPEG"):
        asyncio.run(pool.rows(images, SPEC))


def test_too_many_pixels_are_refused(pool: DecodePool) -> None:
    with pytest.raises(UnsupportedImage, match="at most 1,000,000 pixels"):
        asyncio.run(pool.rows([picture(0, 1001)], SPEC))


class Held:
    """A stand-in for `decode` whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.calls = 0

    def __call__(self, data: bytes, spec: ImageSpec, *, max_pixels: int) -> Any:
        self.calls += 1
        self.begun.release()
        assert self.let_go.wait(30)
        return np.zeros(spec.shape, np.uint8)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(decode_pool, "decode", held)
    return held


def test_the_loop_turns_while_threads_decode(pool: DecodePool, held: Held) -> None:
    async def main() -> None:
        waiting = asyncio.ensure_future(pool.rows([picture(1, LARGE)], SPEC))
        await asyncio.to_thread(held.begun.acquire)
        assert not waiting.done()
        assert pool.statistics().pending == 1
        held.let_go.set()
        await waiting

    asyncio.run(main())


def test_what_would_wait_too_long_is_refused_before_it_waits(pool: DecodePool, held: Held) -> None:
    async def main() -> None:
        first = asyncio.ensure_future(pool.rows([picture(1, LARGE)] * 100, SPEC))
        await asyncio.to_thread(held.begun.acquire)
        with pytest.raises(Overloaded, match="100 pictures wait") as raised:
            await pool.rows([picture(1, LARGE)], SPEC, Deadline.after(0.1))
        assert raised.value.retry_after_s == pytest.approx(100 * decode_pool._FIRST_GUESS_S / 2)
        assert pool.statistics().refused == 1
        held.let_go.set()
        await first
        await pool.rows([picture(1, LARGE)], SPEC, Deadline.after(60))

    asyncio.run(main())


def test_a_request_that_is_cancelled_gives_its_place_back(pool: DecodePool, held: Held) -> None:
    async def main() -> None:
        busy = asyncio.ensure_future(pool.rows([picture(1, LARGE)] * 2, SPEC))
        for _ in range(2):
            await asyncio.to_thread(held.begun.acquire)
        given_up = asyncio.ensure_future(pool.rows([picture(1, LARGE)] * 50, SPEC))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await asyncio.sleep(0)
        assert pool.statistics().pending == 2
        held.let_go.set()
        await busy

    asyncio.run(main())
    assert held.calls == 2


def test_pictures_past_their_deadline_are_not_decoded(held: Held) -> None:
    now_s = [0.0]
    pool = DecodePool(1, max_pixels=10, clock=lambda: now_s[0])

    async def main() -> None:
        first = asyncio.ensure_future(pool.rows([picture(1, LARGE)], SPEC))
        await asyncio.to_thread(held.begun.acquire)
        late = asyncio.ensure_future(pool.rows([picture(1, LARGE)], SPEC, Deadline(1.0)))
        await asyncio.sleep(0)
        now_s[0] = 2.0
        held.let_go.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late

    asyncio.run(main())
    pool.close()
    assert held.calls == 1
