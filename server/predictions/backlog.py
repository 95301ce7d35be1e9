"""Reads a spool: in order, for the writer, and by request id, for feedback on what is not in the database yet.

file ──whole blocks behind the head's mark──▶ Portion, about a thousand rows ──written──▶ mark moved on
                                              nothing left, and its worker gone ──▶ file deleted
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from server.predictions.blocks import GAP, ROWS, VERSION, Block, Rows, read_head, unpack, unpack_gap, unpack_rows
from server.predictions.records import Told, read_version
from server.predictions.spool import (
    HEAD_BYTES,
    Progress,
    origin_of,
    read_progress,
    segments,
    write_progress,
)
from server.predictions.storage import Gap

# Some 3 ms of work.
PORTION_ROWS: Final = 256

log = structlog.get_logger()


@dataclass(slots=True)
class Portion:
    """What is written next of a file.

    Args:
        blocks: Blocks of rows, each with its version.
        gap: What was lost behind them, or None.
        end: Where the file goes on.
        rows: How many rows the blocks have.
    """

    blocks: list[tuple[Rows, Told]] = field(default_factory=list)
    gap: Gap | None = None
    end: int = HEAD_BYTES
    rows: int = 0


class Reading:
    """A file that the writer is at.

    Args:
        path: The file.

    Raises:
        OSError: It is gone.
        ValueError: It is no file of rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = origin_of(path)
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            self._progress = read_progress(self._descriptor)
        except ValueError:
            os.close(self._descriptor)
            raise
        self._versions: dict[int, Told] = {}
        self._portion: Portion | None = None
        # What a predecessor has written is read again, for its versions alone.
        self._content, self._content_at, self._at = b"", HEAD_BYTES, HEAD_BYTES

    def portion(self) -> Portion | None:
        """What is to be written next, the same until it is `done`; None where nothing is there now."""
        if self._portion is None:
            self._portion = self._read_portion()
        return self._portion

    def done(self, written_rows: int, lost_rows: int) -> None:
        """Takes note that the portion is in the database.

        Args:
            written_rows: How many of its rows.
            lost_rows: How many the database refused.
        """
        assert self._portion is not None
        before = self._progress
        self._progress = Progress(self._portion.end, before.written_rows + written_rows, before.lost_rows + lost_rows)
        write_progress(self._descriptor, self._progress)
        self._portion = None

    def finish(self) -> bool:
        """Deletes the file if everything of it is written and nothing more comes; whether that is so."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its worker may append
            return False
        # Looked at again behind the lock: what the worker wrote last is there now.
        if self.portion() is not None:
            return False
        rest = os.fstat(self._descriptor).st_size - self._at
        if rest:  # its worker was killed while it wrote
            log.warning("the end of a spool's file cannot be read", file=self.path.name, rest_bytes=rest)
        self.path.unlink(missing_ok=True)
        self.close()
        return True

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)

    def _read_portion(self) -> Portion | None:
        portion = Portion()
        while portion.rows < PORTION_ROWS and portion.gap is None and (block := self._next_block()) is not None:
            portion.end = self._at
            if block.kind == VERSION:
                number, told = read_version(block.payload)
                self._versions[number] = told
            elif self._at <= self._progress.done_bytes:
                continue
            elif block.kind == GAP:
                portion.gap = unpack_gap(block.payload)
            elif block.kind == ROWS:
                rows = unpack_rows(block.payload)
                portion.blocks.append((rows, self._versions[rows.version]))
                portion.rows += sum(rows.counts)
        return portion if portion.blocks or portion.gap is not None else None

    def _next_block(self) -> Block | None:
        block = next(unpack(self._content, self._at - self._content_at), None)
        if block is None:
            rest = os.fstat(self._descriptor).st_size - self._at
            self._content, self._content_at = os.pread(self._descriptor, rest, self._at) if rest else b"", self._at
            block = next(unpack(self._content), None)
        if block is not None:
            self._at = self._content_at + block.end
        return block


class Backlog:
    """Every file of a spool, the oldest first.

    Args:
        folder: The spool's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readings: dict[str, Reading] = {}
        self._unknown: set[str] = set()

    def readings(self) -> Iterator[Reading]:
        """Files that have something to write, one of each origin; those that are done with are deleted on the way."""
        seen: set[str] = set()
        for path in segments(self._folder):
            reading = self._reading_of(path) if origin_of(path) not in seen else None
            if reading is None:
                continue
            if reading.portion() is not None:
                yield reading
            if reading.portion() is None and reading.finish():
                del self._readings[path.name]
            else:
                seen.add(reading.origin)

    def close(self) -> None:
        """Lets go of every file."""
        for reading in self._readings.values():
            reading.close()
        self._readings.clear()

    def _reading_of(self, path: Path) -> Reading | None:
        if path.name not in self._readings and path.name not in self._unknown:
            try:
                self._readings[path.name] = Reading(path)
            except ValueError as error:
                self._unknown.add(path.name)
                log.error("a spool's file is left alone", file=str(path), reason=str(error))  # noqa: TRY400
        return self._readings.get(path.name)


def find_waiting(folder: Path, ids: Collection[str]) -> Iterator[tuple[str, Rows, Told]]:
    """Blocks of rows that are not in the database yet and have one of these request ids.

    Args:
        folder: The spool's.
        ids: Request ids.

    Yields:
        Whose file it is, the block's rows, and their version.
    """
    wanted = set(ids)
    for path in segments(folder):
        try:
            with path.open("rb") as file:
                done_bytes = read_progress(file.fileno()).done_bytes
                content = file.read()
        except (FileNotFoundError, ValueError):  # just deleted, or none of ours
            continue
        versions: dict[int, Told] = {}
        for kind, payload, end in unpack(content, HEAD_BYTES):
            if kind == VERSION:
                number, told = read_version(payload)
                versions[number] = told
            elif kind == ROWS and end > done_bytes and not wanted.isdisjoint(read_head(payload)[0]["ids"]):
                rows = unpack_rows(payload)
                yield origin_of(path), rows, versions[rows.version]
