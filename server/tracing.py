"""OpenTelemetry traces: one span for each inference, with its stages inside. Needs the `traces` extra.

    traceparent of the HTTP header or gRPC metadata ──keep_parent──▶ context variable
    service: a request is over ──Tracer──▶ infer [decode][queue][infer] ──batches, a thread──▶ OTLP over HTTP

Spans are made when a request is over, from the times that were measured anyway. Without --traces nothing of
OpenTelemetry is imported, and a request pays for one comparison.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from server.errors import StartupError
from server.tensors import InferRequest, Timing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

# W3C Trace Context, https://www.w3.org/TR/trace-context/
HEADERS: Final = ("traceparent", "tracestate")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
DEFAULT_PATH: Final = "/v1/traces"
EXPORT_WITHIN_S: Final = 5.0

_parent: ContextVar[dict[str, str] | None] = ContextVar("trace_parent", default=None)


def keep_parent(headers: Iterable[tuple[str, Any]]) -> None:
    """Keeps the span that the caller of the request that runs now is in.

    Args:
        headers: Of the request, or the call's metadata; names in any case.
    """
    found = {name.lower(): value for name, value in headers if name.lower() in HEADERS and isinstance(value, str)}
    _parent.set(found or None)


def caller_trace() -> str:
    """The id of the trace that the request that runs now is part of; empty where there is none, or traces are off."""
    found = _TRACEPARENT.fullmatch((_parent.get() or {}).get("traceparent", ""))
    return found[1] if found is not None else ""


@asynccontextmanager
async def open_traces(url: str, share: float, version: str) -> AsyncIterator["Tracer | None"]:
    """A tracer for as long as the context lasts; what was not sent yet is sent at its end.

    Args:
        url: Where OTLP over HTTP is taken; empty for no traces. Without a path it is /v1/traces there.
        share: Of the requests that bring no trace, those that begin one, from 0 to 1.
        version: Shoal's own.

    Raises:
        StartupError: The URL is none, or OpenTelemetry is not installed.
    """
    if not url:
        yield None
        return
    provider = _make_provider(_endpoint(url), version)
    try:
        yield Tracer(provider, share)
    finally:
        await asyncio.to_thread(provider.shutdown)


class Tracer:
    """Makes the spans of requests that are over.

    Args:
        provider: Sends them.
        share: Of the requests that bring no trace, those that begin one.
    """

    def __init__(self, provider: "TracerProvider", share: float) -> None:
        from opentelemetry import trace  # noqa: PLC0415  an extra
        from opentelemetry.context import Context as EmptyContext  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._trace = trace
        self._no_parent = EmptyContext()
        self._share = share
        self._extract = TraceContextTextMapPropagator().extract
        self._tracer = provider.get_tracer("shoal")

    def finished(
        self, request: InferRequest, model: str, version: int, outcome: str, took_s: float, timing: Timing | None
    ) -> None:
        """Makes the spans of one request.

        Args:
            request: The request.
            model: The model that was chosen; empty where none was.
            version: Its version, or 0.
            outcome: As `Metrics.record` counts it.
            took_s: How long it took, in seconds.
            timing: Its stages, where it was answered.
        """
        parent = self._context()
        # Decided here, because OpenTelemetry's own sampler takes 7 µs to say no.
        if parent is self._no_parent and random.random() >= self._share:  # noqa: S311  no secret
            return
        end_ns = time.time_ns()
        start_ns = end_ns - int(took_s * 1e9)
        span = self._tracer.start_span(
            f"infer {model}".strip(),
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            start_time=start_ns,
        )
        if span.is_recording():
            span.set_attributes(
                {
                    "shoal.protocol": request.protocol,
                    "shoal.model": model,
                    "shoal.version": version,
                    "shoal.outcome": outcome,
                    "shoal.request_id": request.request_id,
                }
            )
            if timing is None:
                span.set_status(self._trace.StatusCode.ERROR, outcome)
            else:
                self._add_stages(span, start_ns, timing)
        span.end(end_ns)

    def _context(self) -> "Context":
        """What the caller's span is told by, or `_no_parent` where there is none that is well-formed."""
        headers = _parent.get()
        if headers is None:
            return self._no_parent
        context = self._extract(headers)
        known = self._trace.get_current_span(context).get_span_context().is_valid
        return context if known else self._no_parent

    def _add_stages(self, span: Any, start_ns: int, timing: Timing) -> None:
        """One after the other from the request's start; what is left at its end was spent between them."""
        inside = self._trace.set_span_in_context(span)
        stages = (("decode", timing.decode_us), ("queue", timing.queue_us), ("infer", timing.infer_us))
        for name, took_us in stages:
            stage = self._tracer.start_span(name, context=inside, start_time=start_ns)
            start_ns += took_us * 1000
            stage.end(start_ns)


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise StartupError(f"--traces: expected a URL such as http://collector:4318, received {url!r:.60}")
    return url.rstrip("/") + DEFAULT_PATH if parts.path in {"", "/"} else url


def _make_provider(endpoint: str, version: str) -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import DEFAULT_ON  # noqa: PLC0415
    except ImportError as error:
        raise StartupError(
            f"expected OpenTelemetry for --traces: {error}; pip install 'shoal[traces]', or leave --traces out"
        ) from None
    provider = TracerProvider(
        sampler=DEFAULT_ON,  # as the caller's span has it; which begin one is decided in `Tracer`
        resource=Resource.create({"service.name": "shoal", "service.version": version}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_WITHIN_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
