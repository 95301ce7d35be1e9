"""Numbers that take long to get: asked for in a thread every now and then, so that no scrape and no request waits.

every 5 s: disk, GPU ──thread──▶ families ──▶ the next scrape
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

INTERVAL_S: Final = 5.0

Source = Callable[[], Iterable[Metric]]

log = structlog.get_logger()


class Sampler:
    """Asks its sources until it is stopped.

    Args:
        sources: Each gives its families; they may take long.
        interval_s: Between two times, in seconds.
    """

    def __init__(self, sources: Sequence[Source], interval_s: float = INTERVAL_S) -> None:
        self._sources = sources
        self._interval_s = interval_s
        self._latest: list[Metric] = []
        self._failed: set[Source] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Asks for the first time, then in the background."""
        await self._sample()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Asks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def collect(self) -> Iterator[Metric]:
        """What was answered last, for `server.metrics.Metrics.sources`."""
        yield from self._latest

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._sample()

    async def _sample(self) -> None:
        latest: list[Metric] = []
        for source in self._sources:
            try:
                latest += await asyncio.to_thread(_ask, source)
            except Exception as error:  # noqa: BLE001  a driver that fails must not cost the other numbers
                if source not in self._failed:
                    log.warning("a metric cannot be read", reason=str(error))
                self._failed.add(source)
            else:
                self._failed.discard(source)
        self._latest = latest


def _ask(source: Source) -> list[Metric]:
    return list(source())


def disk_of(volume: str, folder: Path) -> Source:
    """How full the disk of a folder is.

    Args:
        volume: What the folder is for, as the label has it.
        folder: The folder.
    """

    def read() -> Iterator[Metric]:
        usage = shutil.disk_usage(folder)
        for name, text, value in (
            ("size", "Size of the file system that holds a folder.", usage.total),
            ("free", "What is left of it.", usage.free),
        ):
            family = GaugeMetricFamily(f"shoal_disk_{name}_bytes", text, labels=["volume"])
            family.add_metric([volume], value)
            yield family

    return read
