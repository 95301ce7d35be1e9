"""The worker's end of the prediction log: answers become blocks of a spool, and what does not fit is counted.

    Group ──numbered──▶ pending ──one write for each tick──▶ spool's file
                           └ bound reached, disk full: lost, counted, told

Everything here runs in the observer's thread; `statistics` may be read from anywhere.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from server.predictions.answers import Answered, Entry, Lane
from server.predictions.blocks import Group, group_answers, pack_gap, pack_rows, pack_version
from server.predictions.contents import entry_of
from server.predictions.spool import HURRY, SEGMENT_BYTES, SERVERS, WRITER, Segment, is_locked, new_origin, sharing
from server.predictions.storage import Gap, Input

MAX_SPOOL_BYTES: Final = 512 << 20
TELL_EVERY_S: Final = 10.0
# A stop looks so often whether the writer is done.
POLL_S: Final = 0.02
_LOOKS: Final = 3
FULL: Final = "the database does not take them fast enough"

log = structlog.get_logger()


class Helper(Protocol):
    """What writes; `server.predictions.writer_process.WriterProcess` is one."""

    def ensure(self) -> None:
        """Sees to it that it runs."""

    def close(self) -> None:
        """Lets go of it once it has ended."""


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """What a worker's log has done.

    Args:
        written: Rows in the database.
        dropped: Rows that were lost.
        pending: Rows that wait for the database.
    """

    written: int
    dropped: int
    pending: int


class PredictionLog:
    """See the module.

    Args:
        folder: The spool's; it is there.
        writer: Writes to the database what the spool has.
        keep_inputs: Whether pictures are kept too.
        max_bytes: What this worker's part of the spool may take.
        clock: Seconds on a monotonic clock.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        writer: Helper,
        *,
        keep_inputs: bool = False,
        max_bytes: int = MAX_SPOOL_BYTES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._keep_inputs = keep_inputs
        self._max_bytes = max_bytes
        self._clock = clock
        self._sleep = sleep
        self._origin = new_origin()
        self._segments: list[Segment] = []  # the writer is not done with; the last one may be appended to
        self._current: Segment | None = None
        self._made = self._next_row = 0
        self._numbers: dict[Lane, int] = {}
        self._said: set[Lane] = set()  # versions that the current file names
        self._blocks: list[bytes] = []
        self._pending_rows = self._pending_bytes = 0
        self._gap: Gap | None = None
        self._dropped = self._told = 0
        self._written = self._refused = self._left = 0  # of files that are closed
        self._reason = ""
        self._tell_at_s = 0.0
        self._lock = threading.Lock()  # a scrape reads files that this object closes
        self._serving = ExitStack()
        self._serving.enter_context(sharing(folder / SERVERS))

    def statistics(self) -> LogStatistics:
        """What it has done so far."""
        with self._lock:
            found = [segment.progress() for segment in self._segments]
            rows = sum(segment.rows for segment in self._segments)
            written, refused = sum(one.written_rows for one in found), sum(one.lost_rows for one in found)
            pending = self._left + rows - written - refused + self._pending_rows
            return LogStatistics(self._written + written, self._dropped + self._refused + refused, pending)

    def keep(self, lane: Lane, group: Group) -> None:
        """Takes answers of one version in; see `Keeper`."""
        if self._current is not None and self._current.size + self._pending_bytes >= SEGMENT_BYTES:
            self._write()
            self._seal()
        if lane not in self._said:
            number = self._numbers.setdefault(lane, len(self._numbers))
            self._add(pack_version(lane, number))
            self._said.add(lane)
        self._add(pack_rows(group, self._numbers[lane], self._next_row))
        self._next_row += group.rows
        self._pending_rows += group.rows

    def keep_late(self, lane: Lane, answers: Sequence[Answered]) -> None:
        """Takes answers in whose inputs are still to be digested; see `Keeper`."""
        entries: list[Entry] = []
        inputs: list[Input] = []
        for answered in answers:
            entry, kept = entry_of(answered, lane, keep_inputs=self._keep_inputs)
            entries.append(entry)
            inputs += kept
        for group in group_answers(entries, inputs):
            self.keep(lane, group)

    def lose(self, rows: int, reason: str) -> None:
        """Counts rows that are lost; see `Keeper`."""
        now_s = time.time()
        self._gap = (self._gap or Gap(now_s, now_s, 0, reason)).with_more(rows, reason, now_s)
        self._reason = reason
        self._dropped += rows

    def flush(self) -> None:
        """Puts what it has where the writer finds it; see `Keeper`."""
        self._writer.ensure()
        self._let_go()
        self._write()
        self._tell(self._clock())

    def finish(self, within_s: float) -> None:
        """Hands everything over and waits for the writer; see `Keeper`."""
        give_up_s = self._clock() + within_s
        self._write()
        self._seal()
        with sharing(self._folder / HURRY):
            while self._segments and self._clock() < give_up_s:
                self._writer.ensure()
                self._sleep(POLL_S)
                self._let_go()
        if self._segments:
            rows = self.statistics().pending
            log.warning("predictions wait in the spool for the next start", rows=rows, folder=str(self._folder))
        self._tell_at_s = 0.0
        self._tell(self._clock())
        self._serving.close()
        if not self._segments:
            self._wait_alone(give_up_s)
        self._writer.close()
        while self._segments:
            self._close_first()

    def _add(self, block: bytes) -> None:
        self._blocks.append(block)
        self._pending_bytes += len(block)

    def _write(self) -> None:
        if not self._blocks and self._gap is None:
            return
        rows, told = self._pending_rows, self._gap
        blocks = self._blocks if told is None else [pack_gap(told), *self._blocks]
        self._blocks, self._pending_rows, self._pending_bytes = [], 0, 0
        reason = self._append(b"".join(blocks), rows)
        if not reason:
            self._gap = None
        elif rows:
            self._said.clear()  # it may be the block of a version that is lost
            self.lose(rows, reason)

    def _append(self, content: bytes, rows: int) -> str:
        """Why it could not; empty where it could."""
        if sum(segment.size for segment in self._segments) + len(content) > self._max_bytes:
            return FULL
        try:
            if self._current is None:
                self._made += 1
                self._current = Segment(self._folder, f"{self._origin}.{self._made:06d}")
                self._segments.append(self._current)
            self._current.append(content, rows)
        except OSError as error:
            return f"the spool cannot be written: {error.strerror}"
        return ""

    def _seal(self) -> None:
        if self._current is not None:
            self._current.seal()
            self._current = None
        self._said.clear()

    def _let_go(self) -> None:
        while self._segments and self._segments[0].gone:
            self._close_first()

    def _close_first(self) -> None:
        with self._lock:
            segment = self._segments.pop(0)
            progress = segment.progress()
            segment.close()
            self._written += progress.written_rows
            self._refused += progress.lost_rows
            self._left += segment.rows - progress.written_rows - progress.lost_rows

    def _wait_alone(self, give_up_s: float) -> None:
        """Whoever is the last one waits for the writer's end, so that the database is left closed."""
        for _ in range(_LOOKS):  # the writer looks too, for a moment
            if not is_locked(self._folder / SERVERS):
                break
            self._sleep(POLL_S / 2)
        else:
            return
        while is_locked(self._folder / WRITER) and self._clock() < give_up_s:
            self._sleep(POLL_S)

    def _tell(self, now_s: float) -> None:
        if self._dropped > self._told and now_s >= self._tell_at_s:
            log.warning("predictions were not logged", rows=self._dropped - self._told, reason=self._reason)
            self._told, self._tell_at_s = self._dropped, now_s + TELL_EVERY_S
