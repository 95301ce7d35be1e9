"""The prediction log's own part: rows that wait for the database, and what happens while it is away.

    Answered ──rows──▶ pending, bounded ──in batches──▶ Storage
                       └ full: lost, counted, told ┘
    database away: try again after 0.1, 0.2, ... 5 s; back again: the gap goes to the log and to the database

Everything here runs in the observer's thread; `statistics` may be read from anywhere.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from server.predictions.records import Answered, Input, Row, spell_answers
from server.versions import LoadedModel

MAX_PENDING_ROWS: Final = 100_000
MAX_INPUT_BYTES: Final = 256 << 20
BATCH_ROWS: Final = 1024
BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TELL_EVERY_S: Final = 10.0
REFRESH_S: Final = 2.0
SWEEP_EVERY_S: Final = 60.0
SWEEP_ROWS: Final = 1000
_DAY_S: Final = 86_400.0
_US: Final = 1e6

log = structlog.get_logger()


class StorageAway(Exception):
    """The database cannot be written now; the same may do later."""


class StorageRefused(Exception):
    """The database will not take these rows, now or later."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that were answered and not logged.

    Args:
        began_s: When the first of them was lost, in seconds since the epoch.
        ended_s: When the last was.
        rows: How many.
        reason: Why.
    """

    began_s: float
    ended_s: float
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Version:
    """What the database keeps of a version.

    Args:
        labels: Its class names.
        variant: The graph in use.
        accuracy: Of that graph on the hold-out rows, 0..1; None where unknown.
    """

    labels: tuple[str, ...]
    variant: str
    accuracy: float | None


@dataclass(slots=True)
class Batch:
    """What is written in one transaction.

    Args:
        rows: Of predictions.
        inputs: Digest → what was sent.
        versions: Model and version → what to keep of it; those that were not written yet.
        gap: What was lost before, or None.
    """

    rows: Sequence[Row] = ()
    inputs: Mapping[str, Input] = field(default_factory=dict)
    versions: Mapping[tuple[str, int], Version] = field(default_factory=dict)
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A prediction that feedback is for.

    Args:
        id: Its number in the table.
        client: Who asked; None where unknown.
        model: What answered.
        version: Of it.
        label: What was answered.
        labels: Every class name of the version; empty where it has none.
    """

    id: int
    client: str | None
    model: str
    version: int
    label: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a version was right, of its latest feedback.

    Args:
        rows: How many were looked at.
        correct: How many were right.
    """

    rows: int
    correct: int


class Storage(Protocol):
    """Where rows go; `server.predictions.store.PredictionStore` is one."""

    def write(self, batch: Batch) -> None:
        """Writes everything of a batch, or nothing.

        Raises:
            StorageAway: Try again later.
            StorageRefused: Never.
        """

    def sweep(self, before_us: int, limit: int) -> int:
        """Deletes what is older, at most so many rows, and returns how many it were.

        Raises:
            StorageAway: Try again later.
        """

    def refresh(self) -> None:
        """Reads again what feedback says of each version.

        Raises:
            StorageAway: Try again later.
        """


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """What a log has done.

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
        storage: Where rows go.
        keep_inputs: Whether pictures are kept too.
        retention_days: How long; 0 for ever.
        max_pending_rows: Rows that may wait for the database.
        clock: Seconds on a monotonic clock.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        keep_inputs: bool = False,
        retention_days: float = 0,
        max_pending_rows: int = MAX_PENDING_ROWS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage = storage
        self._keep_inputs = keep_inputs
        self._retention_s = retention_days * _DAY_S
        self._max_pending_rows = max_pending_rows
        self._clock = clock
        self._sleep = sleep
        self._rows: list[Row] = []
        self._inputs: dict[str, Input] = {}
        self._input_bytes = 0
        self._versions: dict[tuple[str, int], Version] = {}
        self._known_versions: set[tuple[str, int, str]] = set()
        self._gap: Gap | None = None
        self._written = self._dropped = self._told = self._dropped_before = 0
        self._reason = ""
        self._failures = 0
        self._away_since_s: float | None = None
        self._try_at_s = self._refresh_at_s = self._sweep_at_s = self._tell_at_s = 0.0

    def statistics(self) -> LogStatistics:
        """What it has done so far."""
        return LogStatistics(self._written, self._dropped, len(self._rows))

    def keep(self, answers: Sequence[Answered]) -> None:
        """Takes answers in; see `Keeper`."""
        spelled = spell_answers(answers, keep_inputs=self._keep_inputs)
        for answered in answers:
            self._note_version(answered.model)
        room = self._max_pending_rows - len(self._rows)
        self._rows += spelled.rows[:room] if room < len(spelled.rows) else spelled.rows
        if room < len(spelled.rows):
            self.lose(len(spelled.rows) - room, "the database does not take them fast enough")
        for digest, kept in spelled.inputs.items():
            if digest not in self._inputs and self._input_bytes + len(kept.content) <= MAX_INPUT_BYTES:
                self._inputs[digest] = kept
                self._input_bytes += len(kept.content)

    def lose(self, rows: int, reason: str) -> None:
        """Counts rows that are lost; see `Keeper`."""
        now_s = time.time()
        gap = self._gap or Gap(now_s, now_s, 0, reason)
        self._gap = Gap(gap.began_s, now_s, gap.rows + rows, reason)
        self._reason = reason
        self._dropped += rows

    def flush(self) -> None:
        """Writes what it has, as far as that is possible now; see `Keeper`."""
        now_s = self._clock()
        if now_s >= self._try_at_s:
            self._attempt(self._write_all)
        if now_s >= self._refresh_at_s and self._away_since_s is None:
            self._refresh_at_s = now_s + REFRESH_S
            self._attempt(self._storage.refresh)
        if self._retention_s and now_s >= self._sweep_at_s and self._away_since_s is None:
            self._attempt(self._sweep)
        self._tell(now_s)

    def finish(self, within_s: float) -> None:
        """Writes what it has, trying again for so long; see `Keeper`."""
        give_up_s = self._clock() + within_s
        while self._rows or self._gap:
            if self._attempt(self._write_all):
                continue
            wait_s = self._try_at_s - self._clock()
            if self._clock() + wait_s > give_up_s:
                if self._rows:
                    self.lose(len(self._rows), "the database was away at the stop")
                self._rows = []
                break
            self._sleep(max(wait_s, 0.0))
        self._tell_at_s = 0.0
        self._tell(self._clock())

    def _note_version(self, model: LoadedModel) -> None:
        key = (model.name, model.version, model.variant)
        if key in self._known_versions:
            return
        self._known_versions.add(key)
        accuracy = expected_accuracy(model)
        self._versions[model.name, model.version] = Version(model.labels, model.variant, accuracy)

    def _attempt(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except StorageAway as error:
            self._fail(error)
            return False
        if self._away_since_s is not None:
            away_s = self._clock() - self._away_since_s
            lost = self._dropped - self._dropped_before
            log.info("the prediction log's database is back", away_s=round(away_s, 1), lost_rows=lost)
        self._failures, self._away_since_s, self._try_at_s = 0, None, 0.0
        return True

    def _fail(self, error: StorageAway) -> None:
        now_s = self._clock()
        if self._away_since_s is None:
            self._away_since_s, self._dropped_before = now_s, self._dropped
            log.warning("the prediction log's database is away", reason=str(error), pending_rows=len(self._rows))
        self._try_at_s = now_s + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1

    def _write_all(self) -> None:
        while self._rows or self._gap or self._versions:
            rows = self._rows[:BATCH_ROWS]
            inputs = {row[8]: self._inputs[row[8]] for row in rows if row[8] in self._inputs} if self._inputs else {}
            taken = self._write(Batch(rows, inputs, dict(self._versions), self._gap))
            del self._rows[: len(rows)]
            for digest in inputs:
                self._input_bytes -= len(self._inputs.pop(digest).content)
            if not taken:
                return

    def _write(self, batch: Batch) -> bool:
        try:
            self._storage.write(batch)
        except StorageRefused as error:
            log.error("the database refuses predictions", reason=str(error), rows=len(batch.rows))  # noqa: TRY400
            self._versions = {}
            if batch.rows:
                self.lose(len(batch.rows), "the database refused them")
            else:
                self._gap = None
            return False
        self._versions, self._gap = {}, None
        self._written += len(batch.rows)
        return True

    def _sweep(self) -> None:
        before_us = round((time.time() - self._retention_s) * _US)
        # One small batch for each flush, so that deleting never holds the database for long.
        if self._storage.sweep(before_us, SWEEP_ROWS) < SWEEP_ROWS:
            self._sweep_at_s = self._clock() + SWEEP_EVERY_S

    def _tell(self, now_s: float) -> None:
        if self._dropped > self._told and now_s >= self._tell_at_s:
            log.warning("predictions were not logged", rows=self._dropped - self._told, reason=self._reason)
            self._told, self._tell_at_s = self._dropped, now_s + TELL_EVERY_S


def expected_accuracy(model: LoadedModel) -> float | None:
    """Accuracy of the graph in use on the hold-out rows, 0..1; None where nobody measured it.

    Args:
        model: A loaded version.
    """
    accuracies = [variant.accuracy for variant in model.bundle.variants if variant.name == model.variant]
    return accuracies[0] if accuracies and accuracies[0] > 0 else None
