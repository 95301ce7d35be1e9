"""`python -m server report`: what the prediction log says of the days gone by, as HTML and as JSON.

database ──counts by day, client, model, version──▶ Usage ──┬─▶ JSON
         └─feedback, gaps────────────────────────▶         └─▶ server.report_page ──▶ HTML
"""

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from server.errors import StartupError
from server.report_page import render_page
from server.settings import ENV_PREFIX

if TYPE_CHECKING:
    from sqlalchemy import Connection

DAY_US: Final = 86_400_000_000
MAX_DAYS: Final = 3660
NOBODY: Final = ""
VARIABLE: Final = f"{ENV_PREFIX}PREDICTION_LOG"
EXAMPLES: Final = f"""\
examples:
  python -m server report --database sqlite:///predictions.db              # JSON, to standard output
  python -m server report --database sqlite:///predictions.db --html usage.html --json usage.json
  {VARIABLE}=postgresql://shoal@db/shoal python -m server report --days 7 --html usage.html
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one client asked of one version on one day (UTC).

    Args:
        day: Such as `2026-03-31`.
        client: Who asked; empty where unknown.
        model: What answered.
        version: Of it.
        predictions: How many pictures.
        mean_latency_ms: From the decoded request to its answer.
        mean_confidence: Of the best class, 0..1; None where the model is no classifier.
    """

    day: str
    client: str
    model: str
    version: int
    predictions: int
    mean_latency_ms: float
    mean_confidence: float | None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """How one version did.

    Args:
        model: Its name.
        version: Its number.
        variant: The graph in use, when it was last seen.
        predictions: How many pictures.
        feedback: On how many of them callers said what was right.
        accuracy: Share of these that were right; None where there are none.
        expected_accuracy: On the hold-out rows, by export; None where unknown.
    """

    model: str
    version: int
    variant: str
    predictions: int
    feedback: int
    accuracy: float | None
    expected_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Predictions that were answered and not logged.

    Args:
        began: When the first was lost, RFC 3339.
        ended: When the last was.
        rows: How many.
        reason: Why.
    """

    began: str
    ended: str
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report tells.

    Args:
        made_at: When it was made, RFC 3339.
        days: How many days it goes back, today included.
        predictions: In all.
        by_day: Day → predictions.
        by_client: Client → predictions; "" for those of unknown clients.
        by_model: Model → predictions.
        versions: Each version's record.
        usage: The finest counts, of which all others are sums.
        gaps: What is missing.
    """

    made_at: str
    days: int
    predictions: int
    by_day: dict[str, int]
    by_client: dict[str, int]
    by_model: dict[str, int]
    versions: tuple[VersionRecord, ...]
    usage: tuple[Usage, ...]
    gaps: tuple[Lost, ...]


def run_report(arguments: Sequence[str], *, now_s: Callable[[], float] = time.time) -> None:
    """Writes what the command line asks for.

    Args:
        arguments: Behind `report`.
        now_s: Seconds since the epoch.

    Raises:
        StartupError: It asks for what cannot be.
        SystemExit: `--help` was printed.
    """
    wanted = _parser().parse_args(arguments)
    report = read_report(wanted.database, wanted.days, now_s())
    document = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
    if wanted.html is None and wanted.json is None:
        print(document, end="")  # noqa: T201  it is what was asked for
    if wanted.json is not None:
        _write(wanted.json, document)
    if wanted.html is not None:
        _write(wanted.html, render_page(report))


def read_report(database: str, days: int, now_s: float) -> Report:
    """Reads a report's figures.

    Args:
        database: Its URL.
        days: How many days to go back, today included.
        now_s: Seconds since the epoch.

    Raises:
        StartupError: There is no prediction log.
    """
    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        raise StartupError("expected SQLAlchemy and Alembic for a report; pip install 'shoal[predictions]'")
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  as above

    from server.predictions.database import open_engine, read_url  # noqa: PLC0415

    url = read_url(database)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise StartupError(f"expected a prediction log, there is no file {url.database}")
    engine = open_engine(url)
    since_us = (int(now_s * 1e6) // DAY_US - days + 1) * DAY_US
    try:
        with engine.connect() as connection:
            usage = _read_usage(connection, since_us)
            versions = _read_versions(connection, since_us, usage)
            gaps = _read_gaps(connection, since_us)
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StartupError(
            f"expected a prediction log in {url.render_as_string()}, it cannot be read: {reason}"
        ) from None
    finally:
        engine.dispose()
    return Report(
        made_at=_spell_time(int(now_s * 1e6)),
        days=days,
        predictions=sum(one.predictions for one in usage),
        by_day=dict(sorted(_sums(usage, lambda one: one.day).items())),
        by_client=_sums(usage, lambda one: one.client),
        by_model=_sums(usage, lambda one: one.model),
        versions=versions,
        usage=usage,
        gaps=gaps,
    )


def _sums(usage: Sequence[Usage], key: Callable[[Usage], str]) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for one in usage:
        sums[key(one)] += one.predictions
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _read_usage(connection: "Connection", since_us: int) -> tuple[Usage, ...]:
    from sqlalchemy import func, select  # noqa: PLC0415

    from server.predictions.tables import PREDICTIONS  # noqa: PLC0415

    table = PREDICTIONS.c
    day = (table.at_us // DAY_US).label("day")
    client = func.coalesce(table.client, NOBODY).label("client")
    counts = func.count(), func.avg(table.latency_us), func.avg(table.confidence)
    wanted = select(day, client, table.model, table.version, *counts).where(table.at_us >= since_us)
    keys = (day, client, table.model, table.version)
    rows = connection.execute(wanted.group_by(*keys).order_by(*keys)).all()
    return tuple(
        Usage(
            _spell_time(number * DAY_US)[:10],
            name,
            model,
            version,
            count,
            round(float(latency_us) / 1e3, 3),
            None if confidence is None else round(float(confidence), 4),
        )
        for number, name, model, version, count, latency_us, confidence in rows
    )


def _read_versions(connection: "Connection", since_us: int, usage: Sequence[Usage]) -> tuple[VersionRecord, ...]:
    from sqlalchemy import case, func, select  # noqa: PLC0415

    from server.predictions.tables import FEEDBACK, VERSIONS  # noqa: PLC0415

    right = func.sum(case((FEEDBACK.c.correct, 1), else_=0))
    told = select(FEEDBACK.c.model, FEEDBACK.c.version, func.count(), right).where(FEEDBACK.c.at_us >= since_us)
    feedback = {
        (model, version): (count, int(correct))
        for model, version, count, correct in connection.execute(told.group_by(FEEDBACK.c.model, FEEDBACK.c.version))
    }
    known = select(VERSIONS.c.model, VERSIONS.c.version, VERSIONS.c.variant, VERSIONS.c.accuracy)
    facts = {(row.model, row.version): (row.variant, row.accuracy) for row in connection.execute(known)}
    predictions: defaultdict[tuple[str, int], int] = defaultdict(int)
    for one in usage:
        predictions[one.model, one.version] += one.predictions
    records = []
    for model, version in sorted(predictions.keys() | feedback.keys()):
        count, correct = feedback.get((model, version), (0, 0))
        variant, expected = facts.get((model, version), ("", None))
        accuracy = round(correct / count, 4) if count else None
        records.append(VersionRecord(model, version, variant, predictions[model, version], count, accuracy, expected))
    return tuple(records)


def _read_gaps(connection: "Connection", since_us: int) -> tuple[Lost, ...]:
    from sqlalchemy import select  # noqa: PLC0415

    from server.predictions.tables import GAPS  # noqa: PLC0415

    rows = connection.execute(select(GAPS).where(GAPS.c.ended_us >= since_us).order_by(GAPS.c.began_us))
    return tuple(Lost(_spell_time(row.began_us), _spell_time(row.ended_us), row.lost_rows, row.reason) for row in rows)


def _spell_time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartupError(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that is there"
        ) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message}; see python -m server report --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m server report",
        description="Usage by day, client, model and version, live accuracy and gaps, from a prediction log. It only"
        " reads; the server may go on writing. Days are those of UTC.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    set_here: str | None = os.environ.get(VARIABLE) or None
    parser.add_argument(
        "--database",
        metavar="URL",
        default=set_here,
        required=set_here is None,
        help=f"what the server has as --prediction-log (default: {VARIABLE})",
    )
    parser.add_argument(
        "--days", type=_read_days, default=30, metavar="N", help="today and the days before (default: 30)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs no other file")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the same figures as JSON (default: print them)"
    )
    return parser


def _read_days(text: str) -> Any:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"expected a number of days from 1 to {MAX_DAYS:,}, received {text[:40]!r}")
    return int(text)
