"""The metrics of several workers as those of one server.

Counters and histograms of all workers add up, and so do gauges of what each holds (queued rows, connections); gauges of
what is the same everywhere (a version is loaded, what a batch costs) take the largest.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


class _Ready(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


# Gauges that add up; every other one is the same in each worker but for noise.
ADDED_GAUGES: Final = (
    "shoal_queue_rows",
    "shoal_queue_bytes",
    "shoal_running_rows",
    "shoal_connections",
    "process_resident_memory_bytes",
)


def merge(texts: Iterable[bytes]) -> bytes:
    """Merges expositions in Prometheus's text format.

    Args:
        texts: One for each worker.

    Returns:
        One exposition, families in the order they first appear in.
    """
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            families.setdefault(family.name, family)
            _add(values.setdefault(family.name, {}), family)
    for name, family in families.items():
        family.samples = [Sample(sample, dict(labels), value) for (sample, labels), value in values[name].items()]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(families.values()))
    return generate_latest(registry)


def total(text: bytes, sample: str) -> float:
    """The sum of a sample over all its labels.

    Args:
        text: An exposition in Prometheus's text format.
        sample: Such as `shoal_requests_total`.
    """
    families = text_string_to_metric_families(text.decode())
    return sum(found.value for family in families for found in family.samples if found.name == sample)


def _add(values: dict[tuple[str, tuple[tuple[str, str], ...]], float], family: Metric) -> None:
    adds = family.type != "gauge" or family.name in ADDED_GAUGES
    for sample in family.samples:
        key = (sample.name, tuple(sample.labels.items()))
        seen = values.get(key)
        if seen is None:
            values[key] = sample.value
        else:
            values[key] = seen + sample.value if adds else max(seen, sample.value)
