"""Builds what observes answers, from the settings, and takes it down with everything written.

    settings ──▶ store ──tables there?──▶ log ─┬─▶ observer ──▶ service.observer
                                     drift ────┘      store ──▶ feedback ──▶ service.feedback

A database that cannot be reached keeps no server from starting: it is tried again beside serving.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Final

import structlog

from server.drift import DriftMonitor
from server.errors import StartupError
from server.feedback import FeedbackDesk
from server.metrics import Metrics
from server.predictions.log import PredictionLog, StorageAway
from server.predictions.metrics import LogMetrics, expected_accuracies
from server.predictions.observer import Observer
from server.settings import Settings
from server.versions import LoadedModel

NEEDED: Final = ("sqlalchemy", "alembic")
# How long a stop waits for a database that is away. A supervisor kills what takes 5 s longer than the drain may.
CLOSE_WITHIN_S: Final = 4.0
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
            yield Observed(_start(Observer(None, monitor), stack))
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
    from server.predictions.database import read_url  # noqa: PLC0415  a server without a log needs no SQLAlchemy
    from server.predictions.store import PredictionStore  # noqa: PLC0415

    try:
        url = read_url(SHORTHAND.get(settings.prediction_log, settings.prediction_log))
        store = PredictionStore(url, window_rows=settings.drift_window_rows or ACCURACY_ROWS)
        stack.callback(store.close)
        await asyncio.to_thread(_try_to_open, store.open)
    except StartupError as error:
        raise StartupError(f"--prediction-log: {error}") from None
    kept = PredictionLog(
        store,
        keep_inputs=settings.prediction_log_inputs == "whole",
        retention_days=settings.prediction_log_retention_days,
    )
    desk = FeedbackDesk(store)
    stack.callback(desk.close)
    observer = _start(Observer(kept, monitor), stack)
    metrics.sources.append(LogMetrics(observer, kept, store, desk))
    log.info("predictions are logged", database=url.render_as_string(), inputs=settings.prediction_log_inputs)
    return Observed(observer, desk)


def _start(observer: Observer, stack: AsyncExitStack) -> Observer:
    observer.start()
    stack.push_async_callback(observer.close, CLOSE_WITHIN_S)
    return observer


def _try_to_open(open_store: Callable[[], None]) -> None:
    try:
        open_store()
    except StorageAway as error:
        log.warning("the prediction log's database is away; it is tried again", reason=str(error))
