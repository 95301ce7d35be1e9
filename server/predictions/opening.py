"""Builds what observes answers, from the settings, and takes it down with everything written.

    settings ──▶ store ──tables there?──▶ log ─┬─▶ observer ──▶ service.observer
                                     drift ────┘   store, spool ──▶ feedback ──▶ service.feedback

A database that cannot be reached keeps no server from starting: it is tried again beside serving.
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from server.drift import DriftMonitor
from server.errors import StartupError
from server.feedback import FeedbackDesk
from server.metrics import Metrics
from server.predictions.log import PredictionLog
from server.predictions.metrics import LogMetrics, expected_accuracies
from server.predictions.observer import Observer
from server.predictions.orders import Orders
from server.predictions.refresher import Refresher
from server.predictions.spool import make_folder
from server.predictions.storage import StorageAway
from server.predictions.writer_process import WriterProcess
from server.settings import Settings
from server.versions import LoadedModel

if TYPE_CHECKING:
    from sqlalchemy import URL

NEEDED: Final = ("sqlalchemy", "alembic")
ACCURACY_ROWS: Final = 5000  # where drift, whose window it shares, is not watched
SHORTHAND: Final = {"sqlite": "sqlite:///predictions.db"}

log = structlog.get_logger()


@dataclass(slots=True)
class Observed:
    """What sees a service's answers.

    Args:
        observer: Sees them; None where nothing is logged or watched.
        feedback: Takes feedback on them; None where nothing is logged.
    """

    observer: Observer | None = None
    feedback: FeedbackDesk | None = None


@asynccontextmanager
async def open_observer(
    settings: Settings, metrics: Metrics, loaded: Callable[[], Sequence[LoadedModel]]
) -> AsyncIterator[Observed]:
    """What observes answers, for as long as the context lasts; its end writes what was answered by then.

    Args:
        settings: What to log where, and what to watch.
        metrics: Told what comes of it.
        loaded: Gives the loaded versions.

    Raises:
        StartupError: The prediction log cannot be set up as asked.
    """
    metrics.sources.append(partial(expected_accuracies, loaded))
    monitor = DriftMonitor(settings.drift_window_rows, loaded) if settings.drift_window_rows else None
    if monitor is not None:
        metrics.sources.append(monitor.collect)
    async with AsyncExitStack() as stack:
        if settings.prediction_log:
            yield await _open_log(settings, metrics, stack, monitor)
        elif monitor is not None:
            yield Observed(_start(Observer(None, monitor), stack, 0.0))
        else:
            yield Observed()


async def _open_log(
    settings: Settings, metrics: Metrics, stack: AsyncExitStack, monitor: DriftMonitor | None
) -> Observed:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise StartupError(
            f"expected SQLAlchemy and Alembic for --prediction-log, {' and '.join(missing)} is not installed;"
            " pip install 'shoal[predictions]'"
        )
    # A server without a log needs no SQLAlchemy.
    from server.predictions.database import read_url  # noqa: PLC0415
    from server.predictions.finder import Finder  # noqa: PLC0415
    from server.predictions.store import PredictionStore  # noqa: PLC0415

    try:
        url = read_url(SHORTHAND.get(settings.prediction_log, settings.prediction_log))
        folder = spool_folder(settings.prediction_log_spool, url)
        store = PredictionStore(url, window_rows=settings.drift_window_rows or ACCURACY_ROWS)
        stack.callback(store.close)
        await asyncio.to_thread(_try_to_open, store.open)
        kept = _open_spool(settings, url, folder)
    except StartupError as error:
        raise StartupError(f"--prediction-log: {error}") from None
    desk = FeedbackDesk(Finder(store, folder))
    stack.callback(desk.close)
    refresher = Refresher(store.refresh)
    refresher.start()
    stack.callback(refresher.close)
    keep_inputs = settings.prediction_log_inputs == "whole"
    observer = _start(Observer(kept, monitor, keep_inputs=keep_inputs), stack, settings.prediction_log_stop_s)
    metrics.sources.append(LogMetrics(observer, kept, store, desk))
    log.info("predictions are logged", database=url.render_as_string(), inputs=settings.prediction_log_inputs)
    return Observed(observer, desk)


def spool_folder(wanted: Path | None, url: "URL") -> Path:
    """Where answers wait for a database: each has a folder of its own.

    Args:
        wanted: As the settings have it; None for beside an SQLite file, or among temporary files.
        url: The database's.
    """
    if wanted is None and url.get_backend_name() == "sqlite":
        return Path(f"{url.database}-spool").absolute()
    name = hashlib.sha256(url.render_as_string().encode()).hexdigest()[:16]  # of the URL without its password
    if wanted is None:
        return Path(tempfile.gettempdir()) / f"shoal-spool-{os.geteuid()}-{name}"
    return wanted.absolute() / name


def _open_spool(settings: Settings, url: "URL", folder: Path) -> PredictionLog:
    try:
        make_folder(folder)
        orders = Orders(
            url=url.render_as_string(hide_password=False),
            folder=str(folder),
            retention_days=settings.prediction_log_retention_days,
            hurry_bytes=settings.prediction_log_spool_bytes // 2,
            log_level=settings.log_level,
            log_format=settings.log_format,
            cores=tuple(os.sched_getaffinity(0)),
        )
        return PredictionLog(
            folder,
            WriterProcess(orders),
            keep_inputs=settings.prediction_log_inputs == "whole",
            max_bytes=settings.prediction_log_spool_bytes,
        )
    except OSError as error:
        raise StartupError(
            f"expected a folder that can be written for {folder}, where answers wait for the database, received:"
            f" {error.strerror or error}; name another one by --prediction-log-spool"
        ) from None


def _start(observer: Observer, stack: AsyncExitStack, within_s: float) -> Observer:
    observer.start()
    stack.push_async_callback(observer.close, within_s)
    return observer


def _try_to_open(open_store: Callable[[], None]) -> None:
    try:
        open_store()
    except StorageAway as error:
        log.warning("the prediction log's database is away; it is tried again", reason=str(error))
