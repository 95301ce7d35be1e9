"""Writes what a spool has to the database, a portion at a time, and deletes what has grown old.

    Portion ──spelled──▶ Batch ──one transaction──▶ Storage ──▶ the file's mark moves on
    database away: tried again after 0.1, 0.2, ... 5 s
    rows refused: halved and tried again, until only those are left that the database will not have; these are counted

The mark moves behind the transaction, so a writer killed between the two writes a portion again. A row's id comes
from its place in the spool, and the database passes over ids that it has: no row is there twice.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from server.predictions.backlog import PORTION_ROWS, Backlog, Portion, Reading
from server.predictions.records import inputs_of, spell_rows
from server.predictions.storage import Batch, Gap, Input, Row, Storage, StorageAway, StorageRefused, Version

BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SWEEP_EVERY_S: Final = 60.0
SWEEP_ROWS: Final = 1000
_DAY_S: Final = 86_400.0
_US: Final = 1e6

log = structlog.get_logger()


class Recorder:
    """See the module.

    Args:
        folder: The spool's.
        storage: Where rows go.
        retention_days: How long they stay; 0 for ever.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        *,
        retention_days: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backlog = Backlog(folder)
        self._turns: Iterator[Reading] = iter(())
        self._storage = storage
        self._retention_s = retention_days * _DAY_S
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._versions: dict[tuple[str, int], Version] = {}  # as they were written last
        self._refused: Gap | None = None
        self._failures = 0
        self._away_since_s: float | None = None
        self._try_at_s = self._sweep_at_s = 0.0

    def step(self) -> bool:
        """Does a little: writes a portion, or deletes some rows. Whether there may be more to do at once."""
        now_s = self._clock()
        if now_s < self._try_at_s:
            return False
        try:
            did = self._write_next() or self._sweep(now_s)
        except StorageAway as error:
            self._fail(error)
            return False
        self._note_back()
        return did

    def close(self) -> None:
        """Lets go of the files."""
        self._backlog.close()

    def _write_next(self) -> bool:
        # Workers take turns. Those behind the last one are looked at first, and then all of them, once.
        reading = next(self._turns, None)
        if reading is None:
            self._turns = self._backlog.readings()
            reading = next(self._turns, None)
        if reading is None:
            return False
        portion = reading.portion()
        assert portion is not None
        self._write_portion(reading, portion)
        return True

    def _write_portion(self, reading: Reading, portion: Portion) -> None:
        number = self._numbers.get(reading.origin)
        if number is None:
            number = self._numbers[reading.origin] = self._storage.number_of(reading.origin)
        # Spelled before the transaction begins: SQLite has one writer at a time, and feedback is one too.
        rows, inputs, versions = _spell(portion, number)
        versions = {key: known for key, known in versions.items() if self._versions.get(key) != known}
        lost = 0
        for start in range(0, len(rows), PORTION_ROWS):
            chosen = rows[start : start + PORTION_ROWS]
            lost += self._write_rows(chosen, inputs, versions)
            versions = {}
        if portion.gap is not None:
            self._storage.write(Batch(gap=portion.gap))
        if self._refused is not None:
            self._storage.write(Batch(gap=self._refused))
            self._refused = None
        reading.done(len(rows) - lost, lost)

    def _write_rows(
        self, rows: Sequence[Row], inputs: dict[str, Input], versions: dict[tuple[str, int], Version]
    ) -> int:
        """Writes rows; returns how many of them the database refused."""
        kept = {row[9]: inputs[row[9]] for row in rows if row[9] in inputs} if inputs else {}
        try:
            self._storage.write(Batch(rows, kept, versions))
        except StorageRefused as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                return self._write_rows(rows[:middle], inputs, versions) + self._write_rows(rows[middle:], inputs, {})
            self._lose(str(error))
            return 1
        self._versions |= versions
        return 0

    def _lose(self, reason: str) -> None:
        now_s = time.time()
        before = self._refused or Gap(now_s, now_s, 0, "")
        self._refused = before.with_more(1, "the database refused them", now_s)
        log.error("the database refuses a prediction", reason=reason)

    def _sweep(self, now_s: float) -> bool:
        if not self._retention_s or now_s < self._sweep_at_s:
            return False
        before_us = round((time.time() - self._retention_s) * _US)
        # One small batch at a time, so that deleting never holds the database for long.
        if self._storage.sweep(before_us, SWEEP_ROWS) < SWEEP_ROWS:
            self._sweep_at_s = now_s + SWEEP_EVERY_S
            return False
        return True

    def _fail(self, error: StorageAway) -> None:
        now_s = self._clock()
        if self._away_since_s is None:
            self._away_since_s = now_s
            log.warning("the prediction log's database is away", reason=str(error))
        self._try_at_s = now_s + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1

    def _note_back(self) -> None:
        if self._away_since_s is not None:
            away_s = self._clock() - self._away_since_s
            log.info("the prediction log's database is back", away_s=round(away_s, 1))
        self._failures, self._away_since_s, self._try_at_s = 0, None, 0.0


def _spell(portion: Portion, number: int) -> tuple[list[Row], dict[str, Input], dict[tuple[str, int], Version]]:
    rows: list[Row] = []
    inputs: dict[str, Input] = {}
    versions: dict[tuple[str, int], Version] = {}
    for block, told in portion.blocks:
        rows += spell_rows(block, told, number)
        if block.inputs:
            inputs |= inputs_of(block)
        versions[told.model, told.version] = told.kept
    return rows, inputs, versions
