"""What Prometheus reads at /metrics. Counting costs a request about a microsecond; all spelling waits for a scrape.

    service ──record──▶ plain numbers ─┐
    batchers, decode pool ─statistics──┴─ collect, at a scrape ──▶ text

One event loop owns everything here, so there are no locks. Labels come from what is loaded, never from what a caller
wrote: a made-up model name cannot grow the page.
"""

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server.decode_pool import DecodeStatistics
from server.shadow import ShadowStatistics
from server.tensors import Timing

# Dense around the 200 ms budget, so that a quantile near it is told to a few per cent.
LATENCY_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0),
)
STAGE_BUCKETS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
)
BATCH_BUCKETS_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OK: Final = "ok"


class Histogram:
    """Counts of values by bucket.

    Args:
        bounds: Upper bounds of the buckets, ascending; one more takes what is above.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def sum(self) -> float:
        """All values together."""
        return self._sum

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        """Writes itself as Prometheus has histograms: running totals up to +Inf."""
        bounds = [*(repr(bound) for bound in self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


def _latency() -> Histogram:
    return Histogram(LATENCY_BUCKETS_S)


def _stages() -> tuple[Histogram, Histogram, Histogram]:
    return Histogram(STAGE_BUCKETS_S), Histogram(STAGE_BUCKETS_S), Histogram(STAGE_BUCKETS_S)


@dataclass(slots=True)
class _Series:
    """Everything counted for one protocol, model and version."""

    outcomes: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=_latency)
    stages: tuple[Histogram, Histogram, Histogram] = field(default_factory=_stages)
    failed_s: float = 0.0
    last_at_s: float = 0.0


@dataclass(slots=True)
class RequestTotals:
    """One version's requests by any protocol, since the process began.

    Args:
        answered: How many were answered.
        failed: How many were not.
        answered_s: Seconds that the answered ones took together.
        failed_s: The same of the others.
        decode_s: Of the answered ones' seconds, those that decoding took.
        queue_s: Those spent waiting for a batch.
        infer_s: Those of the batches they were in.
        last_at_s: When the last one ended, in seconds since the epoch; 0 where there was none.
    """

    answered: int = 0
    failed: int = 0
    answered_s: float = 0.0
    failed_s: float = 0.0
    decode_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    last_at_s: float = 0.0


class BatcherNumbers(Protocol):
    """What is read of a batcher's statistics."""

    @property
    def queued_rows(self) -> int: ...  # noqa: D102
    @property
    def queued_bytes(self) -> int: ...  # noqa: D102
    @property
    def running_rows(self) -> int: ...  # noqa: D102
    @property
    def batches(self) -> int: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def expired(self) -> int: ...  # noqa: D102
    @property
    def cancelled(self) -> int: ...  # noqa: D102
    @property
    def failed(self) -> int: ...  # noqa: D102
    @property
    def refused(self) -> int: ...  # noqa: D102
    @property
    def batch_rows(self) -> Mapping[int, int]: ...  # noqa: D102


class CacheNumbers(Protocol):
    """What is read of the response cache's statistics."""

    @property
    def entries(self) -> int: ...  # noqa: D102
    @property
    def n_bytes(self) -> int: ...  # noqa: D102
    @property
    def hits(self) -> int: ...  # noqa: D102
    @property
    def misses(self) -> int: ...  # noqa: D102
    @property
    def evicted(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A loaded version, as a scrape sees it.

    Args:
        model: Its name.
        version: Its number.
        variant: The graph in use.
        providers: Execution providers in use.
        numbers: Its batcher's statistics.
        costs_s: Measured seconds for a batch, by its rows.
    """

    model: str
    version: int
    variant: str
    providers: tuple[str, ...]
    numbers: BatcherNumbers
    costs_s: dict[int, float]


class Metrics(Collector):
    """Counts requests, and turns the counts and everyone's statistics into Prometheus' text.

    Attributes:
        versions: Gives the versions that are loaded now.
        shadows: Gives the shadows' statistics.
        decoding: Gives the decode pool's statistics.
        caching: Gives the response cache's statistics, where there is one.
        of_all: Gives the merged page of all workers, where there are several.
    """

    def __init__(self) -> None:
        self.versions: Callable[[], Iterable[ServedVersion]] = tuple
        self.shadows: Callable[[], Iterable[ShadowStatistics]] = tuple
        self.decoding: Callable[[], DecodeStatistics] | None = None
        self.caching: Callable[[], CacheNumbers] | None = None
        self.of_all: Callable[[], Awaitable[bytes]] | None = None
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._events: dict[tuple[str, str], int] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def record(
        self, protocol: str, model: str, version: int, outcome: str, total_s: float, timing: Timing | None = None
    ) -> None:
        """Counts one request.

        Args:
            protocol: The wire format it came by.
            model: The model that was chosen; empty where none was.
            version: Its version, or 0.
            outcome: `OK`, or the name of the error's class.
            total_s: How long it took, in seconds.
            timing: Its stages, where it was answered.
        """
        key = (protocol, model, version)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
        series.latency.observe(total_s)
        series.last_at_s = time.time()
        if outcome != OK:
            series.failed_s += total_s
        if timing is not None:
            decode, queue, infer = series.stages
            decode.observe(timing.decode_us * 1e-6)
            queue.observe(timing.queue_us * 1e-6)
            infer.observe(timing.infer_us * 1e-6)

    def totals(self, model: str, version: int) -> RequestTotals:
        """What was counted for one version.

        Args:
            model: Its name.
            version: Its number.
        """
        totals = RequestTotals()
        for key, series in self._series.items():
            if key[1:] != (model, version):
                continue
            answered = series.outcomes.get(OK, 0)
            totals.answered += answered
            totals.failed += sum(series.outcomes.values()) - answered
            totals.answered_s += series.latency.sum - series.failed_s
            totals.failed_s += series.failed_s
            totals.decode_s += series.stages[0].sum
            totals.queue_s += series.stages[1].sum
            totals.infer_s += series.stages[2].sum
            totals.last_at_s = max(totals.last_at_s, series.last_at_s)
        return totals

    def count_event(self, model: str, event: str) -> None:
        """Counts one change of a model's life: loaded, failed, unloaded, ..."""
        self._events[model, event] = self._events.get((model, event), 0) + 1

    def render(self) -> bytes:
        """This process's page, in Prometheus' text form."""
        return generate_latest(self._registry)

    async def render_all(self) -> bytes:
        """The page of all workers as one, or this process's where it serves alone."""
        return await self.of_all() if self.of_all is not None else self.render()

    def collect(self) -> Iterator[Metric]:
        """Every family; called by the registry at a scrape."""
        yield from self._collect_requests()
        yield from _collect_versions(list(self.versions()))
        events = CounterMetricFamily(
            "shoal_model_events", "Changes in the life of a model's versions.", labels=["model", "event"]
        )
        for (model, event), count in self._events.items():
            events.add_metric([model, event], count)
        yield events
        yield from _collect_shadows(list(self.shadows()))
        if self.decoding is not None:
            yield from _collect_decoding(self.decoding())
        if self.caching is not None:
            yield from _collect_caching(self.caching())

    def _collect_requests(self) -> Iterator[Metric]:
        names = ["protocol", "model", "version"]
        requests = CounterMetricFamily("shoal_requests", "Requests by outcome.", labels=[*names, "outcome"])
        latency = HistogramMetricFamily("shoal_request_seconds", "Time from decoded request to answer.", labels=names)
        stage = HistogramMetricFamily(
            "shoal_stage_seconds", "Where the time of answered requests went.", labels=[*names, "stage"]
        )
        for (protocol, model, version), series in self._series.items():
            labels = [protocol, model, str(version) if version else ""]
            for outcome, count in series.outcomes.items():
                requests.add_metric([*labels, outcome], count)
            series.latency.add_to(latency, labels)
            for name, histogram in zip(("decode", "queue", "infer"), series.stages, strict=True):
                histogram.add_to(stage, [*labels, name])
        yield from (requests, latency, stage)


def _collect_versions(versions: list[ServedVersion]) -> Iterator[Metric]:
    names = ["model", "version"]
    info = GaugeMetricFamily("shoal_model", "Loaded versions.", labels=[*names, "variant", "providers"])
    cost = GaugeMetricFamily("shoal_batch_cost_seconds", "Measured time of a batch.", labels=[*names, "rows"])
    for loaded in versions:
        labels = [loaded.model, str(loaded.version)]
        info.add_metric([*labels, loaded.variant, ",".join(loaded.providers)], 1)
        for rows, seconds in loaded.costs_s.items():
            cost.add_metric([*labels, str(rows)], seconds)
    yield from (info, cost)
    for name, text in (
        ("queued_rows", "Rows that wait for a batch."),
        ("queued_bytes", "Bytes of the rows that wait for a batch."),
        ("running_rows", "Rows in the batch that runs."),
    ):
        gauge = GaugeMetricFamily(f"shoal_{name}", text, labels=names)
        for loaded in versions:
            gauge.add_metric([loaded.model, str(loaded.version)], getattr(loaded.numbers, name))
        yield gauge
    for name, text in (
        ("batches", "Batches that ran."),
        ("rows", "Rows that ran in a batch."),
        ("expired", "Requests whose deadline passed while they waited."),
        ("cancelled", "Requests whose caller went away while they waited."),
        ("failed", "Requests whose batch the model failed."),
        ("refused", "Requests that found the queue full."),
    ):
        counter = CounterMetricFamily(f"shoal_batcher_{name}", text, labels=names)
        for loaded in versions:
            counter.add_metric([loaded.model, str(loaded.version)], getattr(loaded.numbers, name))
        yield counter
    yield _collect_batch_sizes(versions)


def _collect_batch_sizes(versions: list[ServedVersion]) -> Metric:
    family = HistogramMetricFamily("shoal_batch_rows", "Rows in a batch.", labels=["model", "version"])
    for loaded in versions:
        counts = loaded.numbers.batch_rows
        buckets = [(str(bound), sum(n for rows, n in counts.items() if rows <= bound)) for bound in BATCH_BUCKETS_ROWS]
        total = sum(counts.values())
        rows = sum(size * n for size, n in counts.items())
        family.add_metric([loaded.model, str(loaded.version)], [*buckets, ("+Inf", total)], rows)
    return family


def _collect_shadows(shadows: list[ShadowStatistics]) -> Iterator[Metric]:
    names = ["model", "version", "shadow"]
    for name, text in (
        ("requests", "Requests that a shadow computed too."),
        ("rows", "Rows that a shadow computed too."),
        ("agreed_rows", "Rows for which a shadow chose the class that was answered."),
        ("failed", "Requests that a shadow could not compute."),
        ("dropped", "Requests not mirrored because too many were under way."),
    ):
        counter = CounterMetricFamily(f"shoal_shadow_{name}", text, labels=names)
        for pair in shadows:
            counter.add_metric([pair.name, str(pair.answered), str(pair.shadow)], getattr(pair, name))
        yield counter


def _collect_caching(numbers: CacheNumbers) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "shoal_cache_requests", "Requests looked up among earlier answers.", labels=["found"]
    )
    requests.add_metric(["yes"], numbers.hits)
    requests.add_metric(["no"], numbers.misses)
    yield requests
    yield CounterMetricFamily("shoal_cache_evicted", "Answers that made room for others.", numbers.evicted)
    yield GaugeMetricFamily("shoal_cache_entries", "Answers that are remembered.", numbers.entries)
    yield GaugeMetricFamily("shoal_cache_bytes", "What they take.", numbers.n_bytes)


def _collect_decoding(numbers: DecodeStatistics) -> Iterator[Metric]:
    images = CounterMetricFamily("shoal_decoded_images", "Pictures decoded, and where.", labels=["where"])
    images.add_metric(["loop"], numbers.inline)
    images.add_metric(["pool"], numbers.pooled)
    yield images
    yield GaugeMetricFamily("shoal_decode_pending_images", "Pictures that wait for a thread.", numbers.pending)
    yield CounterMetricFamily("shoal_decode_refused", "Requests refused before decoding.", numbers.refused)
    yield GaugeMetricFamily("shoal_decode_cost_seconds", "Mean decode time in a thread.", numbers.cost_s)
