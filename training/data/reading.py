"""Reads every file in parallel: once for its hash, size and mode, once for its pixels."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server import images
from server.errors import UnsupportedImage
from server.images import ImageSpec
from training import console
from training.data.catalogue import Catalogue, Item, Pixels, ordered
from training.errors import TrainingError

_GREY_MODES: Final = ("1", "L", "LA", "F")  # and every mode that begins with I: 16 and 32 bits
_ORIENTATION_TAG: Final = 0x0112
_SIDEWAYS: Final = range(5, 9)  # EXIF orientations that swap height and width
_CHUNK_ITEMS: Final = 16
_AHEAD: Final = 2  # chunks beyond one per thread: results may be larger than what takes them up can keep pace with
_NAMED_FAULTS: Final = 5

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Header:
    """What one file's beginning says.

    Args:
        sha256: Of the whole file, in hex.
        size_px: Height and width, upright.
        grey: Whether it has one channel.
    """

    sha256: str
    size_px: tuple[int, int]
    grey: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """What all headers say together.

    Args:
        fingerprint: "sha256:" and the hash over split, class, file name and contents of every picture.
        hashes: Of every picture, in the order of `training.data.catalogue.ordered`: the file's SHA-256 in hex.
        sizes_px: The distinct (height, width).
        grey: Whether every picture has one channel.
    """

    fingerprint: str
    hashes: tuple[str, ...]
    sizes_px: frozenset[tuple[int, int]]
    grey: bool


def survey(catalogue: Catalogue) -> Survey:
    """Reads every file of a data set once.

    Raises:
        TrainingError: Files are no pictures; the message names them.
    """
    items = ordered(catalogue.items)
    headers = list(each(items, _header, f"reading {len(items):,} files"))
    return Survey(
        fingerprint=fingerprint(catalogue.labels, items, [header.sha256 for header in headers]),
        hashes=tuple(header.sha256 for header in headers),
        sizes_px=frozenset(header.size_px for header in headers),
        grey=all(header.grey for header in headers),
    )


def decode(items: Sequence[Item], spec: ImageSpec, description: str) -> NDArray[np.uint8]:
    """Decodes pictures with the one decoder that serving uses too.

    Args:
        items: The pictures.
        spec: The size and channels of a row.
        description: For the progress bar.

    Returns:
        `uint8[n, height, width, channels]`, in the order of `items`.

    Raises:
        TrainingError: Files are damaged; the message names them.
    """
    rows = np.empty((len(items), *spec.shape), dtype=np.uint8)
    for index, row in enumerate(decoded(items, spec, description)):
        rows[index] = row
    return rows


def decoded(items: Sequence[Item], spec: ImageSpec, description: str) -> Iterator[NDArray[np.uint8]]:
    """Decodes pictures one after another, for what need not hold them all.

    Args:
        items: The pictures.
        spec: The size and channels of a row.
        description: For the progress bar.

    Yields:
        Each picture as `uint8[height, width, channels]`, in the order of `items`.

    Raises:
        TrainingError: Files are damaged; the message names them, when all others have been yielded.
    """
    return each(items, lambda item: _row(item, spec), description)


def _row(item: Item, spec: ImageSpec) -> NDArray[np.uint8]:
    if isinstance(item.content, Pixels):
        row = item.content.row.reshape(*item.content.row.shape[:2], -1)
        if row.shape == spec.shape:  # what encoding and decoding would give back
            return row
    return images.decode(item.read(), spec)


def each(items: Sequence[Item], work: Callable[[Item], Result], description: str) -> Iterator[Result]:
    """Does work on every picture in threads (Pillow and hashlib release the lock).

    Args:
        items: The pictures.
        work: What to do with one.
        description: For the progress bar.

    Yields:
        The results, in the order of `items`.

    Raises:
        TrainingError: Work failed on some; all others were done before, and the message names the first few.
    """
    chunks = [items[start : start + _CHUNK_ITEMS] for start in range(0, len(items), _CHUNK_ITEMS)]
    faults: list[str] = []

    def attempt(chunk: Sequence[Item]) -> list[Result | TrainingError]:
        return [_attempt(item, work) for item in chunk]

    workers = min(16, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read")
    try:
        with console.progress(description, len(items)) as advance:
            for results in _in_order(pool, attempt, chunks, workers + _AHEAD):
                advance(len(results))
                faults += [str(result) for result in results if isinstance(result, TrainingError)]
                yield from (result for result in results if not isinstance(result, TrainingError))
    finally:
        pool.shutdown(cancel_futures=True)
    if faults:
        raise TrainingError(_told(faults))


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Sequence[Item]], Result], chunks: Sequence[Sequence[Item]], window: int
) -> Iterator[Result]:
    """Maps with a bounded number of results under way; `Executor.map` would finish them all, wanted or not."""
    waiting: deque[Future[Result]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(work, chunk))
        if len(waiting) == window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _attempt(item: Item, work: Callable[[Item], Result]) -> Result | TrainingError:
    try:
        return work(item)
    except (UnsupportedImage, OSError) as error:
        return TrainingError(f"{item.place} ({error})")


def _told(faults: list[str]) -> str:
    if len(faults) == 1:
        return f"1 file is no usable picture: {faults[0]}; remove or replace it"
    more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
    named = "; ".join(faults[:_NAMED_FAULTS])
    return f"{len(faults)} files are no usable pictures: {named}{more}; remove or replace them"


def content_hash(item: Item, data: bytes) -> str:
    """Hashes a picture's contents.

    Args:
        item: The picture.
        data: What `item.read()` returned. A row of pixels is hashed as such, with its shape: a PNG of it would change
            with the version of the compressor.

    Returns:
        SHA-256 in hex.
    """
    if not isinstance(item.content, Pixels):
        return hashlib.sha256(data).hexdigest()
    row = item.content.row
    return hashlib.sha256(f"{row.shape}".encode() + row.tobytes()).hexdigest()


def _header(item: Item) -> Header:
    if isinstance(item.content, Pixels):
        height, width, *channels = item.content.row.shape
        return Header(content_hash(item, b""), (height, width), grey=not channels)
    data = item.read()
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
            width, height = image.size
            if image.getexif().get(_ORIENTATION_TAG) in _SIDEWAYS:
                width, height = height, width
            grey = image.mode in _GREY_MODES or image.mode.startswith("I")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        images.decode(data, ImageSpec(1, 1, 3))  # raises with the words that a user of the server would read too
        raise
    return Header(content_hash(item, data), (height, width), grey)


def fingerprint(labels: Sequence[str], items: Sequence[Item], hashes: Sequence[str]) -> str:
    """Names a data set by its contents.

    Args:
        labels: `labels[i]` names class i.
        items: The pictures, in any order.
        hashes: The SHA-256 of each, in hex.

    Returns:
        "sha256:" and a hash over split, class, file name and contents of every picture.
    """
    lines = sorted(
        (item.split, labels[item.label], item.name, content) for item, content in zip(items, hashes, strict=True)
    )
    digest = hashlib.sha256()
    for line in lines:
        # A file's name cannot hold a zero byte, so two data sets cannot run together into one text.
        digest.update(("\0".join(line) + "\n").encode("utf-8", "surrogateescape"))
    return f"sha256:{digest.hexdigest()}"
