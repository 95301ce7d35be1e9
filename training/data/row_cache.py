"""Decoded pictures on disk, for data that exceed memory: written once, then mapped.

    pictures ──decode──▶ .<name>.<random>  ──fsync, rename──▶ <key>.npy ──map──▶ uint8[n, h, w, c]

Rows are read from the mapped file as they are needed; the system keeps in memory what fits, and gives it up for others.
The key holds everything that decides the bytes, so a file is never stale; an unfinished one is removed.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.images import RESIZE, ImageSpec
from training.data.catalogue import Item
from training.data.reading import decoded
from training.errors import TrainingError

_SLACK_BYTES: Final = 1_000_000  # for the header, and so that a disk is not filled to the last byte


def rows(items: Sequence[Item], spec: ImageSpec, fingerprint: str, folder: Path, description: str) -> NDArray[np.uint8]:
    """Maps the decoded pictures, and decodes them first if that was not done before.

    Args:
        items: The pictures.
        spec: What a row is.
        fingerprint: Of the data set.
        folder: Where such files are kept; made if missing.
        description: For the progress bar.

    Returns:
        A read-only `numpy.memmap`, `uint8[n, height, width, channels]`, in the order of `items`.

    Raises:
        TrainingError: Pictures are damaged, or the disk is full. No unfinished file is left.
    """
    file = folder / f"{_key(items, spec, fingerprint)}.npy"
    shape = (len(items), *spec.shape)
    if not _is_whole(file, shape):
        _write(file, items, spec, description)
    mapped: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    return mapped


def _key(items: Sequence[Item], spec: ImageSpec, fingerprint: str) -> str:
    digest = hashlib.sha256(f"{fingerprint} {spec.shape} {RESIZE}\n".encode())
    for item in items:
        digest.update(f"{item.label}\0{item.key}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        mapped = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # missing, or cut off by a failing disk
        return False
    return bool(mapped.shape == shape and mapped.dtype == np.uint8)


def _write(file: Path, items: Sequence[Item], spec: ImageSpec, description: str) -> None:
    shape = (len(items), *spec.shape)
    needed_bytes = int(np.prod(shape, dtype=np.int64)) + _SLACK_BYTES
    temporary = file.with_name(f".{file.stem}.{uuid.uuid4().hex[:8]}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _refuse_full_disk(file.parent, needed_bytes)
        _write_rows(temporary, file, decoded(items, spec, description), shape)
    except OSError as error:
        raise TrainingError(
            f"cannot write the decoded pictures ({needed_bytes / 1e6:,.0f} MB) to {file.parent} ({error}); make room,"
            " name another folder with --cache, or choose a smaller --image-size"
        ) from error


def _write_rows(temporary: Path, file: Path, pictures: Iterable[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    try:
        # Written in order rather than through a map: a disk that fills up is an error here, and a crash there.
        with temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for row in pictures:
                stream.write(row.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_full_disk(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise OSError(f"expected {needed_bytes / 1e6:,.0f} MB free there, found {free_bytes / 1e6:,.0f} MB")
