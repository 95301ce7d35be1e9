"""Reads and writes the prediction log's tables.

    rows ──SQLite: one statement for many rows; PostgreSQL: COPY──▶ predictions, inputs, versions, gaps
    request ids ──▶ what was answered ──labels──▶ feedback ──▶ how often each version was right

The writer's process has one to write; a worker has one for feedback and what it says of versions. The engine's pool
gives each thread its own connection.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from sqlalchemy import URL, Connection, Table, case, delete, func, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from server.errors import StartupError
from server.predictions.database import migrate, open_engine
from server.predictions.records import COLUMNS, SEQUENCE_BITS
from server.predictions.storage import Accuracy, Batch, Known, Row, StorageAway, StorageRefused
from server.predictions.tables import FEEDBACK, GAPS, INPUTS, ORIGINS, PREDICTIONS, VERSIONS

# SQLite lets go of the interpreter's lock for each statement, so rows go many to a statement; few sizes, so that each
# is compiled once.
_SIZES: Final = (256, 64, 16, 4, 1)
_VERSIONS_WATCHED: Final = 50
_DRIVERS: Final = frozenset({"psycopg", "sqlite3"})
# What SQLAlchemy and the drivers alike call rows that are not what a table takes.
_REFUSALS: Final = frozenset({"DataError", "IntegrityError"})
_US: Final = 1e6

Key = tuple[str, int]


class PredictionStore:
    """See the module.

    Args:
        url: From `read_url`.
        window_rows: How many of a version's latest feedbacks its accuracy is of.
    """

    def __init__(self, url: URL, *, window_rows: int) -> None:
        self._engine = open_engine(url)
        self._window_rows = window_rows
        self._is_postgresql = url.get_backend_name() == "postgresql"
        self._upsert = postgresql.insert if self._is_postgresql else sqlite.insert
        self._migrated = False
        self._copy = f"COPY predictions ({', '.join(COLUMNS)}) FROM STDIN"
        self._inserts = {size: _spell_insert(size) for size in _SIZES}
        self._accuracies: Mapping[Key, Accuracy] = {}

    @property
    def accuracies(self) -> Mapping[Key, Accuracy]:
        """Model and version → of its latest feedback, as the last `refresh` found it."""
        return self._accuracies

    def open(self) -> None:
        """Makes sure that the tables are there.

        Raises:
            StartupError: They are those of a newer Shoal.
            StorageAway: The database cannot be reached now.
        """
        with self._errors():
            if not self._migrated:
                migrate(self._engine)
                self._migrated = True

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def write(self, batch: Batch) -> None:
        """Writes everything of a batch, or nothing.

        Args:
            batch: What.

        Raises:
            StorageAway: Try again later.
            StorageRefused: Never: the rows are not what the table takes.
        """
        self._ready()
        try:
            self._write(batch, copy=self._is_postgresql)
        except StorageRefused:
            if not self._is_postgresql or not batch.rows:
                raise
            # COPY knows no exceptions: this is either a row that is there already, or one that is refused again.
            self._write(batch, copy=False)

    def number_of(self, origin: str) -> int:
        """The number that a worker's rows begin with.

        Args:
            origin: One life of one worker.

        Returns:
            The same for the same origin, for ever.

        Raises:
            StorageAway: The database cannot be reached now.
        """
        self._ready()
        wanted = select(ORIGINS.c.number).where(ORIGINS.c.origin == origin)
        with self._errors(), self._engine.begin() as connection:
            number: int | None = connection.execute(wanted).scalar_one_or_none()
            if number is None:
                new = self._upsert(ORIGINS).values(origin=origin, began_us=_now_us())
                connection.execute(new.on_conflict_do_nothing(index_elements=["origin"]))
                number = connection.execute(wanted).scalar_one()
            return number

    def _write(self, batch: Batch, *, copy: bool) -> None:
        with self._errors(), self._engine.begin() as connection:
            self._write_rows(connection, batch.rows, copy=copy)
            now_us = _now_us()
            for (model, version), known in batch.versions.items():
                values = {
                    "labels": json.dumps(known.labels),
                    "variant": known.variant,
                    "accuracy": known.accuracy,
                    "seen_at_us": now_us,
                }
                self._put(connection, VERSIONS, {"model": model, "version": version}, values)
            for digest, kept in batch.inputs.items():
                content = {"at_us": now_us, "form": kept.form, "content": kept.content}
                self._put(connection, INPUTS, {"sha256": digest}, content)
            if batch.gap is not None:
                gap = batch.gap
                span = {"began_us": round(gap.began_s * _US), "ended_us": round(gap.ended_s * _US)}
                connection.execute(insert(GAPS).values(**span, lost_rows=gap.rows, reason=gap.reason))

    def sweep(self, before_us: int, limit: int) -> int:
        """Deletes what is older, at most so many rows of each table.

        Args:
            before_us: Microseconds since the epoch.
            limit: How many.

        Returns:
            How many rows were deleted of the table that had most of them.

        Raises:
            StorageAway: Try again later.
        """
        self._ready()
        with self._errors(), self._engine.begin() as connection:
            counts = [_sweep_predictions(connection, before_us, limit)]
            for table, time_of, key in (
                (INPUTS, INPUTS.c.at_us, INPUTS.c.sha256),
                (FEEDBACK, FEEDBACK.c.at_us, FEEDBACK.c.prediction_id),
                (GAPS, GAPS.c.ended_us, GAPS.c.id),
            ):
                # Of several processes that delete at once, each takes rows that no other one has taken.
                old = select(key).where(time_of < before_us).order_by(time_of)
                chosen = old.limit(limit).with_for_update(skip_locked=True)
                counts.append(connection.execute(delete(table).where(key.in_(chosen.scalar_subquery()))).rowcount)
            return max(counts)

    def refresh(self) -> None:
        """Reads again what feedback says of each version, into `accuracies`.

        Raises:
            StorageAway: Try again later.
        """
        self._ready()
        found: dict[Key, Accuracy] = {}
        with self._errors(), self._engine.connect() as connection:
            latest = select(VERSIONS.c.model, VERSIONS.c.version).order_by(VERSIONS.c.seen_at_us.desc())
            for model, version in connection.execute(latest.limit(_VERSIONS_WATCHED)).all():
                rows, correct = connection.execute(self._accuracy_of(model, version)).one()
                if rows:
                    found[model, version] = Accuracy(rows, int(correct))
        self._accuracies = found

    def find(self, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Known]:
        """What was answered to requests.

        Args:
            keys: Request id and position of a picture in it. Of several requests with one id, the latest counts.

        Returns:
            Key → prediction; without those that are not in the log.

        Raises:
            StorageAway: Try again later.
        """
        self._ready()
        table = PREDICTIONS.c
        wanted = (
            select(table.id, table.request_id, table.position, table.client, table.model, table.version, table.label)
            .where(tuple_(table.request_id, table.position).in_(list(keys)))
            .order_by(table.at_us, table.id)
        )
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(wanted).all()
            labels = {key: self._labels_of(connection, key) for key in {(row.model, row.version) for row in rows}}
        return {
            (row.request_id, row.position): Known(
                row.id, row.client, row.model, row.version, row.label, labels[row.model, row.version]
            )
            for row in rows
        }

    def save_feedback(self, given: Mapping[tuple[str, int], tuple[Known, str]]) -> None:
        """Writes feedback; what was said of the same prediction before is replaced.

        Args:
            given: Request id and position → the prediction and its right label.

        Raises:
            StorageAway: Try again later.
        """
        now_us = _now_us()
        with self._errors(), self._engine.begin() as connection:
            for (request_id, position), (known, label) in given.items():
                values = {
                    "at_us": now_us,
                    "request_id": request_id,
                    "position": position,
                    "client": known.client,
                    "model": known.model,
                    "version": known.version,
                    "predicted": known.label,
                    "label": label,
                    "correct": known.label == label,
                }
                self._put(connection, FEEDBACK, {"prediction_id": known.id}, values)

    def _write_rows(self, connection: Connection, rows: Sequence[Row], *, copy: bool) -> None:
        if not rows:
            return
        # By the driver itself: SQLAlchemy's own part of a statement would cost more than the statement.
        cursor: Any = connection.connection.cursor()
        if self._is_postgresql:
            with cursor:
                self._write_postgresql(cursor, rows, copy=copy)
            return
        start = 0
        for size in _SIZES:
            while len(rows) - start >= size:
                cursor.execute(self._inserts[size], tuple(chain.from_iterable(rows[start : start + size])))
                start += size
        cursor.close()

    def _write_postgresql(self, cursor: Any, rows: Sequence[Row], *, copy: bool) -> None:
        if not copy:
            cursor.executemany(_spell_insert(1, "%s"), rows)
            return
        with cursor.copy(self._copy) as stream:
            for row in rows:
                stream.write_row(row)

    def _put(self, connection: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        row = self._upsert(table).values(**key, **values)
        connection.execute(row.on_conflict_do_update(index_elements=list(key), set_=dict(values)))

    def _accuracy_of(self, model: str, version: int) -> Any:
        latest = (
            select(case((FEEDBACK.c.correct, 1), else_=0).label("correct"))
            .where(FEEDBACK.c.model == model, FEEDBACK.c.version == version)
            .order_by(FEEDBACK.c.at_us.desc())
            .limit(self._window_rows)
            .subquery()
        )
        return select(func.count(), func.coalesce(func.sum(latest.c.correct), 0)).select_from(latest)

    def _labels_of(self, connection: Connection, key: Key) -> tuple[str, ...]:
        wanted = select(VERSIONS.c.labels).where(VERSIONS.c.model == key[0], VERSIONS.c.version == key[1])
        return tuple(json.loads(connection.execute(wanted).scalar_one_or_none() or "[]"))

    def _ready(self) -> None:
        try:
            self.open()
        except StartupError as error:  # too late to refuse to start
            raise StorageAway(str(error)) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Tells a database that is away from rows that it refuses."""
        try:
            yield
        except Exception as error:
            if not _is_of_database(error):
                raise
            message = " ".join(str(getattr(error, "orig", None) or error).split())
            if {kind.__name__ for kind in type(error).__mro__} & _REFUSALS:
                raise StorageRefused(message) from error
            # None of the pooled connections is worth trusting now: the server may have been restarted.
            self._engine.dispose()
            raise StorageAway(message) from error


def _is_of_database(error: BaseException) -> bool:
    # Rows go past SQLAlchemy, so their errors are the driver's own; psycopg is imported only where it is used.
    return isinstance(error, (SQLAlchemyError, OSError)) or type(error).__module__.partition(".")[0] in _DRIVERS


def _sweep_predictions(connection: Connection, before_us: int, limit: int) -> int:
    """Deletes old predictions, and no more than that.

    A worker's rows are together in the order of their ids, which is that of their times, so the oldest ones of each are
    the first: there is no index by time on SQLite, and none is needed. Where a clock was set back, what is behind rows
    that only seem young waits until these go.
    """
    table, deleted, start = PREDICTIONS.c, 0, 0
    while deleted < limit:
        first = connection.execute(select(table.id).where(table.id >= start).order_by(table.id).limit(1)).scalar()
        if first is None:
            break
        start = ((first >> SEQUENCE_BITS) + 1) << SEQUENCE_BITS
        own = select(table.id, table.at_us).where(table.id >= first, table.id < start).order_by(table.id)
        oldest = connection.execute(own.limit(limit - deleted)).all()
        if any(row.at_us < before_us for row in oldest):
            among = table.id.between(oldest[0].id, oldest[-1].id)
            deleted += connection.execute(delete(PREDICTIONS).where(among, table.at_us < before_us)).rowcount
    return deleted


def _spell_insert(rows: int, place: str = "?") -> str:
    row = f"({', '.join([place] * len(COLUMNS))})"
    values = ", ".join([row] * rows)
    return f"INSERT INTO predictions ({', '.join(COLUMNS)}) VALUES {values} ON CONFLICT (id) DO NOTHING"  # noqa: S608  names of ours


def _now_us() -> int:
    return round(time.time() * _US)
