"""Builds one serving process and takes it down again, in one AsyncExitStack.

    up:    decode pool → models → service → prediction log → gRPC → HTTP
    down:  unready → wait drain_grace_s → stop accepting → finish what was accepted → write what was answered → batchers
           → sessions → decode pool

The first SIGTERM or SIGINT begins the way down; a second one exits at once.
"""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from server.admission import Admission
from server.announcement import Announcement, announce
from server.batcher import BatcherOptions
from server.cores import available_cores
from server.decode_pool import DecodePool
from server.errors import BundleError, StartupError
from server.executor import ON_HOST, ExecutorOptions
from server.gpu_metrics import open_gpus
from server.health_bounds import HealthBounds
from server.loop_lag import LoopLag
from server.metrics import Metrics
from server.metrics_families import about
from server.metrics_port import open_metrics_port
from server.metrics_sampler import Sampler, disk_of
from server.models import LoadOptions, ModelEvent, Models, ModelsOptions
from server.predictions.opening import open_observer
from server.repository import VersionPolicy
from server.request_log import RequestLog
from server.response_cache import ResponseCache
from server.security import Security, open_security
from server.service import Service
from server.settings import Settings
from server.shadow import Shadows
from server.signatures import read_public_keys
from server.sockets import bind
from server.tracing import open_traces
from server.transports.grpc import GrpcTransport
from server.transports.http import HttpTransport
from server.transports.http_routes import shoal_version
from server.transports.v2 import V2

_ALARMING: Final = frozenset({"failed", "rolled_back", "policy_refused", "scan"})
# Up to how long a batch runs on the event loop, with a core to spare and without one.
INLINE_S: Final = 0.001
INLINE_ALONE_S: Final = 0.004
_SIGNALED: Final = 128  # plus the signal's number is how a shell tells that one ended a process

log = structlog.get_logger()


@dataclass(slots=True)
class App:
    """One serving process, up and running.

    Args:
        service: The door that its transports use.
        http: Its HTTP side, which can be handed connections.
        grpc_transport: Its gRPC side.
        grpc_port: Where gRPC listens.
        metrics: What it counts.
        models: What it has loaded.
        listener: Hears what happens to its models.
    """

    service: Service
    http: HttpTransport
    grpc_transport: GrpcTransport
    grpc_port: int
    metrics: Metrics
    models: Models
    listener: "_EventListener"

    async def become_unready(self) -> None:
        """Tells load balancers and clients to go elsewhere; requests are still answered."""
        self.service.draining = True
        await self.grpc_transport.publish_health()

    def announcement(self) -> Announcement:
        """What to tell the person who started it."""
        served = [
            f"{model.model} version {model.version} ({model.variant} on {', '.join(model.providers)})"
            for model in self.service.served()
        ]
        manifest = self.service.describe().manifest if served else None  # explicit control may begin with nothing
        return Announcement(shoal_version(), ", ".join(served), has_example=bool(manifest and manifest.golden.file))


async def serve(settings: Settings) -> None:
    """Serves until a signal, then drains.

    Args:
        settings: How.

    Raises:
        StartupError: It cannot start as asked.
    """
    asyncio.get_running_loop().set_exception_handler(_log_stray)
    with bind(settings.host, settings.http_port, flag="--http-port") as listening:
        bind(settings.host, settings.grpc_port, flag="--grpc-port").close()
        async with open_app(settings, listening) as app, open_metrics_port(settings, app.metrics.render_all):
            stop = _stop_on_signals()
            announce(settings, app.announcement(), listening.getsockname()[1], app.grpc_port)
            await stop.wait()
            await app.become_unready()
            log.info("draining", grace_s=settings.drain_grace_s)
            await asyncio.sleep(settings.drain_grace_s)
    log.info("stopped")


@asynccontextmanager
async def open_app(
    settings: Settings, listening: socket.socket | None, *, grpc_port: int | None = None, reuse_port: bool = False
) -> AsyncIterator[App]:
    """Everything between sockets and sessions, up for as long as the context lasts.

    Args:
        settings: How.
        listening: A bound HTTP socket; None where connections are handed to `App.http.adopt`.
        grpc_port: Instead of the settings' one.
        reuse_port: Whether other processes share the gRPC port.

    Raises:
        StartupError: It cannot start as asked.
    """
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        security = await stack.enter_async_context(open_security(settings))
        pool = DecodePool(settings.decode_threads, max_pixels=settings.max_image_pixels)
        stack.callback(pool.close)
        shadows = Shadows()
        cache = ResponseCache(settings.response_cache_bytes) if settings.response_cache_bytes else None
        listener = _EventListener(metrics)
        models = Models(settings.models, _models_options(settings), on_event=listener)
        stack.push_async_callback(models.close)
        await models.start()
        stack.push_async_callback(shadows.close)
        service = Service(
            models,
            pool,
            admission=Admission(),
            metrics=metrics,
            shadows=shadows,
            budget_s=settings.latency_budget_ms / 1e3,
            cache=cache,
            # What one of several workers loads or sets, the others would not have.
            control=models if settings.model_control == "explicit" and not reuse_port else None,
            alone=not reuse_port,
        )
        metrics.versions, metrics.shadows, metrics.decoding = service.served, shadows.statistics, pool.statistics
        metrics.states = service.index
        await _watch_requests(settings, service, stack)
        await _open_sources(settings, metrics, stack)
        observed = await stack.enter_async_context(open_observer(settings, metrics, lambda: models.loaded))
        service.observer, service.feedback = observed.observer, observed.feedback
        http, grpc_transport, port = await _open_transports(
            settings, service, metrics, security, stack, listening, grpc_port, reuse_port=reuse_port
        )
        if listening is not None:
            metrics.connections = lambda: http.connections
        if cache is not None:
            metrics.caching, listener.freed = cache.statistics, cache.forget_closed
        listener.changed = grpc_transport.publish_health
        # What is loaded now lives as long as the process: collections need not look at it again.
        gc.collect()
        gc.freeze()
        yield App(service, http, grpc_transport, port, metrics, models, listener)


async def _watch_requests(settings: Settings, service: Service, stack: AsyncExitStack) -> None:
    """Has slow requests logged and spans made, where that is asked for."""
    if settings.log_slow_ms:
        service.log = RequestLog(settings.log_slow_ms / 1e3)
        service.finished += (service.log.finished,)
    traces = open_traces(settings.traces, settings.traces_share, shoal_version())
    tracer = await stack.enter_async_context(traces)
    if tracer is not None:
        service.finished += (tracer.finished,)
        service.traced = True


async def _open_sources(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> None:
    """What is told besides requests and models: the event loop, the disk, the GPU, the server itself."""
    lag = LoopLag()
    lag.start()
    stack.callback(lag.stop)
    sources = [disk_of("models", settings.models)]
    gpus = open_gpus(settings.devices) if "cuda" in settings.providers else None
    sampler = Sampler([*sources, gpus] if gpus is not None else sources)
    await sampler.start()
    stack.push_async_callback(sampler.stop)
    identity = partial(about, shoal_version(), settings.latency_budget_ms / 1e3)
    metrics.sources += [identity, lag.collect, sampler.collect]


async def _open_transports(
    settings: Settings,
    service: Service,
    metrics: Metrics,
    security: Security,
    stack: AsyncExitStack,
    listening: socket.socket | None,
    grpc_port: int | None,
    *,
    reuse_port: bool,
) -> tuple[HttpTransport, GrpcTransport, int]:
    v2 = V2(service, metrics, shoal_version())
    http = HttpTransport(
        service,
        metrics,
        max_body_bytes=settings.max_body_bytes,
        drain_timeout_s=settings.drain_timeout_s,
        budget_s=settings.latency_budget_ms / 1e3,
        v2=v2,
        security=security,
    )
    grpc_transport = GrpcTransport(
        service,
        metrics,
        max_message_bytes=settings.max_body_bytes,
        stream_window=settings.stream_window,
        v2=v2,
        reuse_port=reuse_port,
        security=security,
        grpc_host=settings.grpc_host,
    )

    async def stop_both() -> None:
        await asyncio.gather(http.stop(), grpc_transport.stop(settings.drain_timeout_s))

    stack.push_async_callback(stop_both)
    port = await grpc_transport.start(settings.host, settings.grpc_port if grpc_port is None else grpc_port)
    await http.start(listening)
    return http, grpc_transport, port


class _EventListener:
    """Counts and logs what happens to models, and has their readiness told where it may have changed."""

    def __init__(self, metrics: Metrics) -> None:
        self.changed: Callable[[], Any] | None = None
        self.rolled_back: Callable[[ModelEvent], None] | None = None
        self.freed: Callable[[], None] | None = None
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()

    def __call__(self, event: ModelEvent) -> None:
        fault = event.fault or (event.kind if event.kind == "rolled_back" else "")
        self._metrics.count_event(event.name, event.kind, event.version, fault, event.duration_s)
        details = {"model": event.name, "version": event.version, "variant": event.variant, "reason": event.reason}
        known: dict[str, Any] = {name: value for name, value in details.items() if value}
        if event.duration_s:
            known["duration_s"] = round(event.duration_s, 3)
        (log.warning if event.kind in _ALARMING else log.info)(f"model {event.kind}", **known)
        if event.kind == "unloaded" and self.freed is not None:
            self.freed()
        if event.kind == "rolled_back" and self.rolled_back is not None:
            self.rolled_back(event)
        if self.changed is not None:
            task = asyncio.get_running_loop().create_task(self.changed())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _models_options(settings: Settings) -> ModelsOptions:
    return ModelsOptions(
        load=LoadOptions(
            executor=ExecutorOptions(
                providers=settings.providers,
                intra_op_threads=settings.intra_op_threads,
                max_batch_rows=settings.max_batch_rows,
                inline_s=_inline_s(settings, available_cores()),
                device=settings.devices[0] if settings.devices else None,
            ),
            batcher=BatcherOptions(
                max_batch_rows=settings.max_batch_rows,
                max_queue_rows=settings.max_queue_rows,
                max_queue_bytes=settings.max_queue_bytes,
                max_delay_s=settings.max_delay_ms / 1e3,
                # A quarter of the budget leaves room for the batch that runs, the own one and the wait.
                max_batch_s=settings.latency_budget_ms / 4e3,
            ),
            variant=settings.variant,
            trusted_keys=_checked_keys(settings.trusted_keys),
        ),
        default_model=settings.default_model,
        versions=_read_versions(settings.versions),
        mode=settings.model_control,
        preload=settings.preload,
        poll_interval_s=settings.poll_interval_s,
        bounds=HealthBounds(
            window_s=settings.rollback_window_s,
            min_requests=settings.rollback_min_requests,
            max_error_rate=settings.rollback_max_error_rate,
            max_latency_ratio=settings.rollback_max_latency_ratio,
        ),
    )


def _inline_s(settings: Settings, cores: int) -> float:
    """Up to how long a batch runs on the event loop.

    With a core to spare the loop goes on reading there while the thread computes. Without one the two only take turns,
    and the turns cost: requests of 32 images are 5 % cheaper without them. What stands still meanwhile would wait for
    the same core anyway, so the bound is what a refusal or a probe may be late by: of all models together, only one
    runs a batch there in a turn of the loop.
    """
    if settings.inline_batch_ms is not None:
        return settings.inline_batch_ms / 1e3
    spare = 0 < settings.workers < cores or not set(settings.providers) <= set(ON_HOST)
    return INLINE_S if spare else INLINE_ALONE_S


def _checked_keys(path: Path | None) -> Path | None:
    if path is not None:
        try:
            read_public_keys(path)
        except BundleError as error:
            raise StartupError(f"--trusted-keys: {error}") from None
    return path


def _read_versions(text: str) -> VersionPolicy:
    try:
        return VersionPolicy.parse(text)
    except StartupError as error:
        raise StartupError(f"--versions: {error}") from None


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(_SIGNALED + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop


def _log_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("unexpected", what=context["message"], exc_info=context.get("exception"))
