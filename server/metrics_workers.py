"""What is told of the serving processes themselves: here for one process, and for a supervisor's workers.

scrape ──▶ supervisor ──render──▶ every worker ──families──▶ `merged_metrics` ──▶ one page of all
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.merged_metrics import MergedMetrics, Page, spell

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class WorkerNumbers:
    """One worker, as a scrape sees it.

    Args:
        slot: Which place among the workers it fills, from 0.
        connections: Open HTTP connections.
        requests: Requests since it began.
        memory_bytes: Memory that it has in RAM.
    """

    slot: int
    connections: int
    requests: float
    memory_bytes: float


def families(ready: int, restarts: int, each: Iterable[WorkerNumbers]) -> Iterator[Metric]:
    """The serving processes, one by one; a server in one process is its own only worker.

    Args:
        ready: How many take connections.
        restarts: How many ended unasked.
        each: Their numbers.
    """
    yield GaugeMetricFamily("shoal_workers", "Workers that take connections.", ready)
    yield CounterMetricFamily("shoal_worker_restarts", "Workers that ended unasked.", restarts)
    given = GaugeMetricFamily("shoal_connections", "HTTP connections that each worker has.", labels=["slot"])
    served = CounterMetricFamily("shoal_worker_requests", "Requests by worker.", labels=["slot"])
    memory = GaugeMetricFamily("shoal_worker_memory_bytes", "Memory that each worker has in RAM.", labels=["slot"])
    for worker in each:
        labels = [str(worker.slot)]
        given.add_metric(labels, worker.connections)
        served.add_metric(labels, worker.requests)
        memory.add_metric(labels, worker.memory_bytes)
    yield from (given, served, memory)


class RenderingWorker(Protocol):
    """What is asked of a worker; `server.worker_process.WorkerProcess` is one."""

    slot: int

    @property
    def alive(self) -> bool:
        """Whether the process runs."""

    @property
    def ready(self) -> bool:
        """Whether it takes connections."""

    @property
    def connections(self) -> int:
        """Its open HTTP connections."""

    async def render_metrics(self) -> bytes:
        """Its own metrics, packed; empty where it does not answer in time."""


class WorkersMetrics:
    """The metrics of a supervisor and its workers as one page.

    Attributes:
        restarts: Workers that ended unasked.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._merged = MergedMetrics()

    async def render(self, workers: Collection[RenderingWorker], retiring: Collection[RenderingWorker]) -> bytes:
        """The page of all.

        Args:
            workers: Those in their slots.
            retiring: Those that finish what they have.
        """
        pages = await asyncio.gather(*(self.ask(worker) for worker in (*workers, *retiring)))
        merged = self._merged.merge(self._own(list(zip(workers, pages, strict=False))))
        # In a thread: connections should not wait to be accepted meanwhile.
        return await asyncio.to_thread(spell, merged)

    async def ask(self, worker: RenderingWorker) -> Page:
        """Has a worker tell its counts now.

        Args:
            worker: Which.
        """
        packed = await worker.render_metrics()
        # What has ended meanwhile is counted among the ended.
        return self._merged.update(worker, packed if worker.alive else b"")

    def end(self, worker: RenderingWorker) -> None:
        """Keeps the counts of a worker that has ended.

        Args:
            worker: Which.
        """
        self._merged.end(worker)

    def _own(self, told: list[tuple[RenderingWorker, Page]]) -> Iterator[Metric]:
        yield from ProcessCollector(registry=CollectorRegistry()).collect()
        ready = sum(worker.ready for worker, _ in told)
        yield from families(ready, self.restarts, [_numbers(worker, page) for worker, page in told])


def _numbers(worker: RenderingWorker, page: Page) -> WorkerNumbers:
    return WorkerNumbers(
        worker.slot,
        worker.connections if worker.alive else 0,
        page.total("shoal_requests_total"),
        page.total("process_resident_memory_bytes"),
    )
