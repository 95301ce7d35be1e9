"""A folder of files between the workers that answer and the process that writes to the database.

    worker ──append──▶ ORIGIN.000001.rows, ... ──read, from the oldest on──▶ writer ──all written──▶ deleted
                           └ head: how far the writer has come, which the worker reads for its metrics

    servers.lock  shared by every worker that uses the folder: the writer ends once nobody does
    writer.lock   held by the writer: whoever gets it starts one
    hurry.lock    shared by those that wait for the writer: it then takes its full share of the processor
    *.rows        locked by the worker as long as it appends; free: nothing more comes

Locks go with the process that holds them, so a killed worker or writer leaves nothing to tidy up. An origin is one life
of one worker; its name begins with the time, so names in their order are files in their order.
"""

import fcntl
import os
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

SEGMENT_BYTES: Final = 4 << 20
SUFFIX: Final = ".rows"
SERVERS, WRITER, HURRY = "servers.lock", "writer.lock", "hurry.lock"
_MAGIC: Final = b"shoalsp2"
_HEAD: Final = struct.Struct("<8sQQQ")
HEAD_BYTES: Final = _HEAD.size


class Progress(NamedTuple):
    """How far the writer has come in a file.

    Args:
        done_bytes: Where it goes on.
        written_rows: Rows that are in the database.
        lost_rows: Rows that the database refused.
    """

    done_bytes: int = HEAD_BYTES
    written_rows: int = 0
    lost_rows: int = 0


def new_origin() -> str:
    """A name for one life of one worker, behind all names of before."""
    return f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"


def origin_of(segment: Path) -> str:
    """Whose file it is."""
    return segment.name.split(".")[0]


def make_folder(path: Path) -> None:
    """Makes a spool's folder, which is for its owner's eyes only.

    Raises:
        OSError: It cannot be made, or is somebody else's.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Among temporary files, whoever comes first may have left a folder or a link under this name.
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path} is a link, or somebody else's")


def segments(folder: Path) -> list[Path]:
    """Every file of rows, the oldest first."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)


def waiting_bytes(folder: Path) -> int:
    """What all files of rows take."""
    return sum(_size_of(path) for path in segments(folder))


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Locks a file; the lock lasts until the descriptor is closed, or its process has ended.

    Args:
        path: Made where it is not there.
        shared: Whether others may have it too.

    Returns:
        The descriptor; None where somebody else has the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether somebody has a lock on a file."""
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def sharing(path: Path) -> Iterator[None]:
    """Shares the lock on a file for as long as the context lasts."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # at most for the moment in which somebody looks whether it is free
        yield
    finally:
        os.close(descriptor)


class Segment:
    """A file that this worker appends to, or has appended to.

    Args:
        folder: Where.
        name: Without the suffix.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / f"{name}.new"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Before it has its name: a file of rows that nobody has locked is one that the writer deletes.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            os.write(self._descriptor, _HEAD.pack(_MAGIC, *Progress()))
            path.rename(folder / f"{name}{SUFFIX}")
        except OSError:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            raise
        self.size = HEAD_BYTES
        self.rows = 0

    def append(self, content: bytes, rows: int) -> None:
        """Writes blocks behind what is there, all or nothing.

        Args:
            content: The blocks.
            rows: How many rows they have.

        Raises:
            OSError: It cannot be written: the disk is full, for example.
        """
        try:
            view = memoryview(content)
            while view:
                view = view[os.pwrite(self._descriptor, view, self.size + len(content) - len(view)) :]
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(content)
        self.rows += rows

    def progress(self) -> Progress:
        """How far the writer has come."""
        return read_progress(self._descriptor)

    @property
    def gone(self) -> bool:
        """Whether the writer is done with it."""
        return os.fstat(self._descriptor).st_nlink == 0

    def seal(self) -> None:
        """Says that nothing more comes."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of it; it is sealed then."""
        os.close(self._descriptor)


def read_progress(descriptor: int) -> Progress:
    """How far the writer has come in an open file.

    Raises:
        ValueError: It is no file of rows.
    """
    head = os.pread(descriptor, HEAD_BYTES, 0)
    if len(head) < HEAD_BYTES or not head.startswith(_MAGIC):
        raise ValueError("expected a file of rows of this Shoal, received another")
    return Progress(*_HEAD.unpack(head)[1:])


def write_progress(descriptor: int, progress: Progress) -> None:
    """Tells the worker, and the writer's successor, how far the writer has come."""
    os.pwrite(descriptor, _HEAD.pack(_MAGIC, *progress), 0)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted in the meantime
        return 0
