"""What Prometheus reads at /metrics. Counting costs a request about a microsecond; all spelling waits for a scrape.

    service ──record──▶ plain numbers ───────────────────────┐
    batchers, decode pool, ... ──statistics──────────────────┤
    loop lag, disk, GPU, ... (`Metrics.sources`) ──families──┴─ collect, at a scrape ──▶ text

One event loop owns everything here, so there are no locks. Labels come from what is loaded, never from what a caller
wrote: a made-up model name cannot grow the page. docs/metrics.md explains each metric.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server import metrics_families as families
from server.decode_pool import DecodeStatistics
from server.errors import Overloaded
from server.merged_metrics import pack, spell
from server.metrics_families import CacheNumbers, ServedVersion, StateOfVersion
from server.metrics_histogram import LATENCY_BUCKETS_S, STAGE_BUCKETS_S, Histogram
from server.metrics_workers import CONTENT_TYPE, WorkerNumbers
from server.metrics_workers import families as of_workers
from server.shadow import ShadowStatistics
from server.tensors import Timing

__all__ = ["CONTENT_TYPE", "LATENCY_BUCKETS_S", "OK", "Histogram", "Metrics", "RequestTotals", "ServedVersion"]

OK: Final = "ok"
# Told from the start as 0: Prometheus sees no increase where a series begins.
REFUSALS: Final = ("congestion", "late", "queue_full", "decode", "explain", "rate_limit")
STAGES: Final = ("decode", "queue", "infer", "other")


def _latency() -> Histogram:
    return Histogram(LATENCY_BUCKETS_S)


def _stages() -> tuple[Histogram, Histogram, Histogram, Histogram]:
    return (
        Histogram(STAGE_BUCKETS_S),
        Histogram(STAGE_BUCKETS_S),
        Histogram(STAGE_BUCKETS_S),
        Histogram(STAGE_BUCKETS_S),
    )


@dataclass(slots=True)
class _Series:
    """Everything counted for one protocol, model and version."""

    outcomes: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=_latency)
    stages: tuple[Histogram, Histogram, Histogram, Histogram] = field(default_factory=_stages)
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


class Metrics(Collector):
    """Counts requests, and turns the counts and everyone's statistics into Prometheus' text.

    Attributes:
        versions: Gives the versions that are loaded now.
        shadows: Gives the shadows' statistics.
        decoding: Gives the decode pool's statistics.
        caching: Gives the response cache's statistics, where there is one.
        states: Gives the state of every version.
        connections: Gives the open HTTP connections, where this process is the whole server.
        sources: Further families, from whoever has some to tell.
        of_all: Gives the merged page of all workers, where there are several.
    """

    def __init__(self) -> None:
        self.versions: Callable[[], Iterable[ServedVersion]] = tuple
        self.shadows: Callable[[], Iterable[ShadowStatistics]] = tuple
        self.decoding: Callable[[], DecodeStatistics] | None = None
        self.caching: Callable[[], CacheNumbers] | None = None
        self.states: Callable[[], Iterable[StateOfVersion]] = tuple
        self.connections: Callable[[], int] | None = None
        self.sources: list[Callable[[], Iterable[Metric]]] = []
        self.of_all: Callable[[], Awaitable[bytes]] | None = None
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._shed: dict[str, int] = {}  # by protocol, not yet among the series
        self._refusals: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        self._events: Counter[tuple[str, str]] = Counter()
        self._failures: Counter[tuple[str, str]] = Counter()
        self._faults: dict[tuple[str, int], str] = {}
        self._load_times_s: dict[tuple[str, int], float] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._process = ProcessCollector(registry=self._registry)
        for collector in (PlatformCollector, GCCollector):
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
            decode, queue, infer, other = series.stages
            decode.observe(timing.decode_us * 1e-6)
            queue.observe(timing.queue_us * 1e-6)
            infer.observe(timing.infer_us * 1e-6)
            known_s = (timing.decode_us + timing.queue_us + timing.infer_us) * 1e-6
            other.observe(total_s - known_s if total_s > known_s else 0.0)

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

    def note(self, error: BaseException) -> str:
        """Counts a refusal under its reason.

        Args:
            error: Why a request was not answered.

        Returns:
            The outcome that `record` counts it as.
        """
        if isinstance(error, Overloaded):
            self.count_refusal(error.reason)
        return type(error).__name__

    def count_refusal(self, reason: str) -> None:
        """Counts a request that was refused because there was too much to do.

        Args:
            reason: Which bound it met, as `server.errors.Overloaded` has it.
        """
        self._refusals[reason] += 1

    def count_shed(self, protocol: str) -> None:
        """Counts a request that was refused unread: as `record` and `count_refusal` would, and cheaper.

        Args:
            protocol: The wire format it came by.
        """
        self._shed[protocol] = self._shed.get(protocol, 0) + 1

    def _take_in_shed(self) -> None:
        for protocol, count in self._shed.items():
            series = self._series.setdefault((protocol, "", 0), _Series())
            series.outcomes[Overloaded.__name__] = series.outcomes.get(Overloaded.__name__, 0) + count
            series.latency.observe(0.0, count)
            self._refusals["congestion"] += count
        self._shed.clear()

    def count_event(
        self, model: str, event: str, version: int | None = None, fault: str = "", took_s: float = 0.0
    ) -> None:
        """Counts one change of a model's life.

        Args:
            model: Its name.
            event: Loading, ready, failed, rolled_back, ...
            version: The version, where it is about one.
            fault: Why it failed, in a word; empty where it did not.
            took_s: How long its load took, in seconds; 0 where it is about no load.
        """
        self._events[model, event] += 1
        if version is None:
            return
        if fault:
            self._failures[model, fault] += 1
            self._faults[model, version] = fault
        elif event == "ready":
            self._faults.pop((model, version), None)
            self._load_times_s[model, version] = took_s

    def render(self) -> bytes:
        """This process's page, in Prometheus' text form."""
        return spell(self._registry.collect())

    def packed(self) -> bytes:
        """This process's families, for the supervisor."""
        return pack(self._registry.collect())

    async def render_all(self) -> bytes:
        """The page of all workers as one, or this process's where it serves alone."""
        if self.of_all is not None:
            return await self.of_all()
        # Spelling 15 busy versions takes 15 ms, for which no request should wait.
        return await asyncio.to_thread(spell, list(self._registry.collect()))

    def collect(self) -> Iterator[Metric]:
        """Every family; called by the registry at a scrape."""
        self._take_in_shed()
        yield from self._collect_requests()
        yield families.refusals(self._refusals)
        served = list(self.versions())
        yield from families.versions(served)
        yield from families.states(self.states(), self._faults)
        yield from families.events(self._events, self._failures)
        yield families.load_times(served, self._load_times_s)
        yield from families.shadows(list(self.shadows()))
        if self.decoding is not None:
            yield from families.decoding(self.decoding())
        if self.caching is not None:
            yield from families.caching(self.caching())
        if self.connections is not None:
            yield from of_workers(1, 0, [self._own_numbers(self.connections())])
        for source in self.sources:
            yield from source()

    def _own_numbers(self, connections: int) -> WorkerNumbers:
        requests = sum(sum(series.outcomes.values()) for series in self._series.values())
        memory = [family for family in self._process.collect() if family.name == "process_resident_memory_bytes"]
        return WorkerNumbers(0, connections, requests, memory[0].samples[0].value if memory else 0)

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
            for name, histogram in zip(STAGES, series.stages, strict=True):
                histogram.add_to(stage, [*labels, name])
        yield from (requests, latency, stage)
