import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from structlog.testing import capture_logs

from server.metrics_sampler import Sampler, disk_of


class Source:
    def __init__(self) -> None:
        self.fails = False
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> Iterator[Metric]:
        self._loop.call_soon_threadsafe(self.asked.set)
        if self.fails:
            raise OSError("the driver is gone")
        yield GaugeMetricFamily("mine", "Mine.", 1)

    async def wait_asked(self) -> None:
        """Waits until it has been asked and the answer was taken in."""
        for _ in range(2):
            self.asked.clear()
            await self.asked.wait()


def names(sampler: Sampler) -> list[str]:
    return [family.name for family in sampler.collect()]


def test_it_knows_from_its_start_and_goes_on_asking() -> None:
    async def main() -> None:
        source = Source()
        sampler = Sampler([source], interval_s=0.001)
        await sampler.start()
        assert names(sampler) == ["mine"]
        await source.wait_asked()
        await sampler.stop()

    asyncio.run(main())


def test_one_that_fails_is_reported_once_and_costs_the_others_nothing() -> None:
    async def main() -> None:
        bad, good = Source(), Source()
        bad.fails = True
        sampler = Sampler([bad, good, disk_of("models", Path("/nowhere/at/all"))], interval_s=0.001)
        with capture_logs() as logs:
            await sampler.start()
            await bad.wait_asked()
            assert names(sampler) == ["mine"]
            assert sorted(entry["reason"] for entry in logs) == [
                "[Errno 2] No such file or directory: '/nowhere/at/all'",
                "the driver is gone",
            ]
            bad.fails = False
            await bad.wait_asked()
            assert names(sampler) == ["mine", "mine"]
        await sampler.stop()

    asyncio.run(main())


def test_a_disk_is_told_by_what_it_is_for(tmp_path: Path) -> None:
    size, free = disk_of("models", tmp_path)()
    assert size.name == "shoal_disk_size_bytes"
    assert size.samples[0].labels == {"volume": "models"}
    assert size.samples[0].value == shutil.disk_usage(tmp_path).total
    assert 0 < free.samples[0].value <= size.samples[0].value
