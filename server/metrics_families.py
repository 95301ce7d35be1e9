"""Everyone's statistics as families of metrics, made at a scrape; docs/metrics.md explains each."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from server.decode_pool import DecodeStatistics
from server.metrics_histogram import BATCH_BUCKETS_ROWS
from server.shadow import ShadowStatistics


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


class StateOfVersion(Protocol):
    """What is read of a line of the models' index."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102


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


def versions(served: list[ServedVersion]) -> Iterator[Metric]:
    """What is loaded, what waits for it and what it has run.

    Args:
        served: The loaded versions.
    """
    names = ["model", "version"]
    info = GaugeMetricFamily("shoal_model", "Loaded versions.", labels=[*names, "variant", "providers"])
    cost = GaugeMetricFamily("shoal_batch_cost_seconds", "Measured time of a batch.", labels=[*names, "rows"])
    for loaded in served:
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
        for loaded in served:
            gauge.add_metric([loaded.model, str(loaded.version)], getattr(loaded.numbers, name))
        yield gauge
    yield from _batchers(served)
    yield _batch_sizes(served)


def _batchers(served: list[ServedVersion]) -> Iterator[Metric]:
    for name, text in (
        ("batches", "Batches that ran."),
        ("rows", "Rows that ran in a batch."),
        ("expired", "Requests whose deadline passed while they waited."),
        ("cancelled", "Requests whose caller went away while they waited."),
        ("failed", "Requests whose batch the model failed."),
        ("refused", "Requests that found the queue full."),
    ):
        counter = CounterMetricFamily(f"shoal_batcher_{name}", text, labels=["model", "version"])
        for loaded in served:
            counter.add_metric([loaded.model, str(loaded.version)], getattr(loaded.numbers, name))
        yield counter


def _batch_sizes(served: list[ServedVersion]) -> Metric:
    family = HistogramMetricFamily("shoal_batch_rows", "Rows in a batch.", labels=["model", "version"])
    for loaded in served:
        counts = loaded.numbers.batch_rows
        buckets = [(str(bound), sum(n for rows, n in counts.items() if rows <= bound)) for bound in BATCH_BUCKETS_ROWS]
        total = sum(counts.values())
        rows = sum(size * n for size, n in counts.items())
        family.add_metric([loaded.model, str(loaded.version)], [*buckets, ("+Inf", total)], rows)
    return family


def states(index: Iterable[StateOfVersion], faults: Mapping[tuple[str, int], str]) -> Iterator[Metric]:
    """Whether the newest version on disk is the one that answers.

    Args:
        index: The state of every version.
        faults: Why a version was refused, in a word, by model and version.
    """
    ready = GaugeMetricFamily("shoal_ready_version", "The newest version that can answer.", labels=["model"])
    failed = GaugeMetricFamily(
        "shoal_failed_version", "The newest version on disk that was refused.", labels=["model", "reason"]
    )
    newest: dict[tuple[str, str], int] = {}
    for state in index:
        newest[state.name, state.state] = max(state.version, newest.get((state.name, state.state), 0))
    for (model, state_name), version in newest.items():
        if state_name == "ready":
            ready.add_metric([model], version)
        elif state_name == "failed":
            failed.add_metric([model, faults.get((model, version), "unknown")], version)
    yield from (ready, failed)


def events(counts: Mapping[tuple[str, str], int], failures: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    """What happened to models, and why loads failed.

    Args:
        counts: How often each event came, by model and event.
        failures: How often a load failed, by model and reason.
    """
    family = CounterMetricFamily(
        "shoal_model_events", "Changes in the life of a model's versions.", labels=["model", "event"]
    )
    for labels, count in counts.items():
        family.add_metric(list(labels), count)
    failed = CounterMetricFamily(
        "shoal_load_failures", "Versions that could not be loaded or were taken back.", labels=["model", "reason"]
    )
    for labels, count in failures.items():
        failed.add_metric(list(labels), count)
    yield from (family, failed)


def load_times(served: Iterable[ServedVersion], seconds: Mapping[tuple[str, int], float]) -> Metric:
    """How long it took to load what is loaded.

    Args:
        served: The loaded versions.
        seconds: Of each version's latest load, by model and version.
    """
    family = GaugeMetricFamily("shoal_load_seconds", "Time that the load took.", labels=["model", "version"])
    for loaded in served:
        took_s = seconds.get((loaded.model, loaded.version))
        if took_s is not None:
            family.add_metric([loaded.model, str(loaded.version)], took_s)
    return family


def refusals(counts: Counter[str]) -> Metric:
    """Requests that were refused because there was too much to do.

    Args:
        counts: How many, by reason.
    """
    family = CounterMetricFamily("shoal_refusals", "Requests refused under load.", labels=["reason"])
    for reason, count in counts.items():
        family.add_metric([reason], count)
    return family


def shadows(pairs: list[ShadowStatistics]) -> Iterator[Metric]:
    """How shadows compare.

    Args:
        pairs: A shadow and a version that answers.
    """
    names = ["model", "version", "shadow"]
    for name, text in (
        ("requests", "Requests that a shadow computed too."),
        ("rows", "Rows that a shadow computed too."),
        ("agreed_rows", "Rows for which a shadow chose the class that was answered."),
        ("failed", "Requests that a shadow could not compute."),
        ("dropped", "Requests not mirrored because too many were under way."),
    ):
        counter = CounterMetricFamily(f"shoal_shadow_{name}", text, labels=names)
        for pair in pairs:
            counter.add_metric([pair.name, str(pair.answered), str(pair.shadow)], getattr(pair, name))
        yield counter


def caching(numbers: CacheNumbers) -> Iterator[Metric]:
    """What remembered answers save and take.

    Args:
        numbers: The cache's statistics.
    """
    requests = CounterMetricFamily(
        "shoal_cache_requests", "Requests looked up among earlier answers.", labels=["found"]
    )
    requests.add_metric(["yes"], numbers.hits)
    requests.add_metric(["no"], numbers.misses)
    yield requests
    yield CounterMetricFamily("shoal_cache_evicted", "Answers that made room for others.", numbers.evicted)
    yield GaugeMetricFamily("shoal_cache_entries", "Answers that are remembered.", numbers.entries)
    yield GaugeMetricFamily("shoal_cache_bytes", "What they take.", numbers.n_bytes)


def decoding(numbers: DecodeStatistics) -> Iterator[Metric]:
    """What the decode pool has done.

    Args:
        numbers: Its statistics.
    """
    images = CounterMetricFamily("shoal_decoded_images", "Pictures decoded, and where.", labels=["where"])
    images.add_metric(["loop"], numbers.inline)
    images.add_metric(["pool"], numbers.pooled)
    yield images
    yield GaugeMetricFamily("shoal_decode_pending_images", "Pictures that wait for a thread.", numbers.pending)
    yield CounterMetricFamily("shoal_decode_refused", "Requests refused before decoding.", numbers.refused)
    yield GaugeMetricFamily("shoal_decode_cost_seconds", "Mean decode time in a thread.", numbers.cost_s)


def about(version: str, budget_s: float) -> Iterator[Metric]:
    """What server this is.

    Args:
        version: Shoal's own.
        budget_s: Of a request that names no deadline, in seconds.
    """
    info = GaugeMetricFamily("shoal_info", "The server's own version.", labels=["version"])
    info.add_metric([version], 1)
    yield info
    yield GaugeMetricFamily("shoal_latency_budget_seconds", "Budget of a request that names no deadline.", budget_s)
