import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.merged_metrics import MergedMetrics, Page, pack, spell, unpack
from server.metrics_workers import WorkersMetrics

ROOT = Path(__file__).parents[3]
TEXT = b"""# HELP shoal_requests_total Requests by outcome.
# TYPE shoal_requests_total counter
shoal_requests_total{outcome="ok",protocol="http"} 3.0
shoal_requests_total{outcome="Overloaded",protocol="http"} 1.0
# HELP shoal_request_seconds Latency.
# TYPE shoal_request_seconds histogram
shoal_request_seconds_bucket{le="0.1"} 2.0
shoal_request_seconds_bucket{le="+Inf"} 3.0
shoal_request_seconds_count 3.0
shoal_request_seconds_sum 0.5
# HELP shoal_queued_rows Rows that wait.
# TYPE shoal_queued_rows gauge
shoal_queued_rows{model="m"} 5.0
# HELP shoal_ready_version The newest version that can answer.
# TYPE shoal_ready_version gauge
shoal_ready_version{model="m"} 7.0
# HELP shoal_batch_cost_seconds Measured time of a batch.
# TYPE shoal_batch_cost_seconds gauge
shoal_batch_cost_seconds{rows="1"} 0.25
"""
TEXT_TWO = (
    TEXT.replace(b" 3.0", b" 10.0")
    .replace(b"0.25", b"0.5")
    .replace(b" 7.0", b" 8.0")
    .replace(b'outcome="Overloaded"', b'outcome="Draining"')
)
ONE, TWO = (pack(text_string_to_metric_families(text.decode())) for text in (TEXT, TEXT_TWO))
OK = 'shoal_requests_total{outcome="ok",protocol="http"}'


def merge(pages: list[bytes]) -> bytes:
    merged = MergedMetrics()
    for number, page in enumerate(pages):
        merged.update(number, page)
    return spell(merged.merge([]))


def lines(text: bytes) -> set[str]:
    return {line for line in text.decode().splitlines() if not line.startswith("#")}


def value(text: bytes, sample: str) -> float:
    (line,) = [line for line in lines(text) if line.startswith(sample)]
    return float(line.removeprefix(sample))


def test_counters_and_histograms_add_up() -> None:
    merged = lines(merge([ONE, TWO]))
    assert f"{OK} 13.0" in merged
    assert 'shoal_requests_total{outcome="Overloaded",protocol="http"} 1.0' in merged
    assert 'shoal_requests_total{outcome="Draining",protocol="http"} 1.0' in merged
    assert {
        'shoal_request_seconds_bucket{le="0.1"} 4.0',
        'shoal_request_seconds_bucket{le="+Inf"} 13.0',
        "shoal_request_seconds_count 13.0",
        "shoal_request_seconds_sum 1.0",
    } <= merged


def test_what_each_holds_adds_up_and_what_is_the_same_everywhere_does_not() -> None:
    merged = lines(merge([ONE, TWO]))
    assert 'shoal_queued_rows{model="m"} 10.0' in merged
    assert 'shoal_batch_cost_seconds{rows="1"} 0.5' in merged


def test_a_version_is_ready_once_every_worker_has_it() -> None:
    assert 'shoal_ready_version{model="m"} 7.0' in lines(merge([TWO, ONE]))


def test_one_worker_is_left_as_it_is() -> None:
    assert lines(merge([ONE])) == lines(TEXT)
    assert lines(merge([ONE, b""])) == lines(TEXT)


def test_help_and_type_are_told_once() -> None:
    merged = merge([ONE, TWO]).decode()
    assert merged.count("# TYPE shoal_requests_total counter") == 1


def test_total_sums_over_labels() -> None:
    assert unpack(ONE).total("shoal_requests_total") == 4.0
    assert Page().total("shoal_requests_total") == 0.0


def test_no_total_drops_when_a_worker_ends_and_its_gauges_go_with_it() -> None:
    merged = MergedMetrics()
    merged.update("a", ONE)
    merged.update("b", TWO)
    before = spell(merged.merge([]))
    merged.end("b")
    after = spell(merged.merge([]))
    assert value(after, OK) == value(before, OK) == 13
    assert value(after, "shoal_request_seconds_sum") == 1.0
    assert value(after, 'shoal_queued_rows{model="m"}') == 5
    merged.update("c", ONE)
    merged.end("c")
    merged.end("c")
    assert value(spell(merged.merge([])), OK) == 16


def test_a_worker_that_does_not_answer_in_time_keeps_what_it_had_counted() -> None:
    merged = MergedMetrics()
    merged.update("a", TWO)
    assert merged.update("a", b"").total("shoal_requests_total") == 11
    assert value(spell(merged.merge([])), OK) == 10


@dataclass(eq=False)
class Worker:
    slot: int
    text: bytes
    alive: bool = True
    ready: bool = True
    connections: int = 2
    ends_meanwhile: bool = field(default=False, kw_only=True)

    async def render_metrics(self) -> bytes:
        await asyncio.sleep(0)
        self.alive = not self.ends_meanwhile
        return self.text


def test_each_worker_is_told_of_and_all_together() -> None:
    first, second = Worker(0, ONE), Worker(1, TWO, ready=False)
    metrics = WorkersMetrics()
    metrics.restarts = 4
    text = asyncio.run(metrics.render([first, second], []))
    assert value(text, "shoal_workers ") == 1
    assert value(text, "shoal_worker_restarts_total ") == 4
    assert value(text, 'shoal_worker_requests_total{slot="1"}') == 11
    assert value(text, 'shoal_connections{slot="0"}') == 2
    assert value(text, OK) == 13


def test_one_that_retires_still_counts_but_has_no_slot() -> None:
    text = asyncio.run(WorkersMetrics().render([Worker(0, ONE)], [Worker(0, TWO)]))
    assert value(text, OK) == 13
    assert value(text, 'shoal_worker_requests_total{slot="0"}') == 4


@pytest.mark.parametrize("ends_meanwhile", [True, False])
def test_one_that_ends_while_it_is_asked_is_not_counted_twice(*, ends_meanwhile: bool) -> None:
    worker, metrics = Worker(0, ONE), WorkersMetrics()
    asyncio.run(metrics.render([worker], []))
    worker.ends_meanwhile = ends_meanwhile

    async def render_and_end() -> bytes:
        rendering = asyncio.create_task(metrics.render([worker], []))
        await asyncio.sleep(0)
        if ends_meanwhile:
            metrics.end(worker)
        return await rendering

    assert value(asyncio.run(render_and_end()), OK) == 3


@pytest.mark.slow
def test_a_supervisor_is_not_made_to_import_what_only_models_need() -> None:
    heavy = ("onnxruntime", "grpc", "numpy", "PIL", "aiohttp", "sqlalchemy")
    code = f"import sys, server.supervisor; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
