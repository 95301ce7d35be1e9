"""What real servers tell at /metrics, held against docs/metrics.md."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from benchmarks.processes import worker_pids
from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from server.merged_metrics import ADDED_GAUGES, LEAST_GAUGES
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.metrics_page import documented, families, free_port, read, value
from tests.wire.server_process import ServerProcess, run_server, run_to_end
from tests.wire.test_workers_wire import wait_until

pytestmark = pytest.mark.slow
# GPUs: their names are held against docs/metrics.md in tests/unit/server/test_gpu_metrics.py.
ELSEWHERE = frozenset({"GPU"})
REQUESTS = 9
# Switches on what has metrics of its own.
EVERYTHING = ("--response-cache-bytes", "100000", "--latency-budget-ms", "5000")


@dataclass(frozen=True)
class Measured:
    """A server with a port for metrics."""

    server: ServerProcess
    models: Path
    metrics_port: int

    @property
    def page(self) -> str:
        return read(self.metrics_port)


def measured(folder: Path, workers: int) -> Iterator[Measured]:
    port = free_port()
    write_bundle(folder / "models", "grey", 1)
    log = f"sqlite:///{folder / 'predictions.db'}"
    flags = ("--workers", str(workers), "--metrics-port", str(port), "--prediction-log", log, *EVERYTHING)
    with run_server(folder / "models", folder / "server", *flags) as server:
        ask(server)
        yield Measured(server, folder / "models", port)


def ask(server: ServerProcess) -> None:
    """`REQUESTS` requests, one of them wrong."""
    for number in range(REQUESTS - 1):
        with Http(server.http_port) as http:
            assert http.predict(picture(number), "image/png").status == 200
    with Http(server.http_port) as http:
        assert http.predict(b"", "image/png").status == 400


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    yield from measured(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    yield from measured(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(params=["one", "two"])
def either(request: pytest.FixtureRequest) -> Measured:
    found: Measured = request.getfixturevalue(request.param)
    return found


def test_every_metric_is_explained_and_every_explained_metric_is_told(either: Measured) -> None:
    explained = {row.name: row.kind for row in documented().values() if row.section not in ELSEWHERE}
    assert {name: family.type for name, family in families(either.page).items()} == explained


def test_labels_are_those_explained(either: Measured) -> None:
    rows = documented()
    for name, family in families(either.page).items():
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == rows[name].labels, sample


def test_the_gauges_that_are_merged_in_their_own_way_exist() -> None:
    gauges = {row.name for row in documented().values() if row.kind == "gauge"}
    assert gauges >= ADDED_GAUGES | LEAST_GAUGES
    assert not ADDED_GAUGES & LEAST_GAUGES


def test_requests_are_told_by_outcome_and_stage(either: Measured) -> None:
    page = either.page
    answered = {"protocol": "http", "model": "grey", "version": "1"}
    assert value(page, "shoal_requests_total", outcome="ok", **answered) >= 8
    assert value(page, "shoal_requests_total", outcome="InvalidInput", protocol="http") >= 1
    stages = [
        value(page, "shoal_stage_seconds_sum", stage=s, **answered) for s in ("decode", "queue", "infer", "other")
    ]
    whole_s = value(page, "shoal_request_seconds_sum", **answered)
    assert min(stages) >= 0
    assert stages[2] > 0
    assert sum(stages) == pytest.approx(whole_s, rel=0.01)


def test_the_process_and_its_surroundings_are_told(either: Measured) -> None:
    page = either.page
    assert value(page, "shoal_latency_budget_seconds") == 5
    assert value(page, "shoal_ready_version", model="grey") == 1
    disk = shutil.disk_usage(either.models)
    assert value(page, "shoal_disk_size_bytes", volume="models") == disk.total
    assert value(page, "shoal_disk_free_bytes", volume="models") == pytest.approx(disk.free, rel=0.2)
    before = value(page, "shoal_loop_lag_seconds_count")
    wait_until(lambda: value(either.page, "shoal_loop_lag_seconds_count") > before, "the loop's lag is measured")


def test_workers_are_told_one_by_one(one: Measured, two: Measured) -> None:
    for found, slots in ((one, {"0"}), (two, {"0", "1"})):
        page = found.page
        assert value(page, "shoal_workers") == len(slots)
        memory = families(page)["shoal_worker_memory_bytes"].samples
        assert {sample.labels["slot"] for sample in memory} == slots
        assert all(sample.value > 30e6 for sample in memory)
        before = value(page, "shoal_worker_requests_total")
        ask(found.server)
        assert value(found.page, "shoal_worker_requests_total") - before == REQUESTS
        with Http(found.server.http_port) as http:
            http._connection.connect()
            wait_until(partial(has_connections, found), "the connection is counted")


def has_connections(found: Measured) -> bool:
    return value(found.page, "shoal_connections") >= 1


def test_the_port_for_metrics_has_nothing_else(either: Measured) -> None:
    assert json.loads(read(either.metrics_port, "/health/live")) == {"status": "alive"}
    with Http(either.metrics_port) as http:
        assert http.get("/model-info").status == 404
        assert http.predict(picture(1), "image/png").status == 404
    names = re.findall("^# TYPE .*", read(either.server.http_port), re.MULTILINE)
    assert names == re.findall("^# TYPE .*", either.page, re.MULTILINE)


def test_a_version_that_cannot_be_loaded_is_told_with_its_reason(either: Measured) -> None:
    broken = write_bundle(either.models, "dull", 1)
    wait_until(lambda: value(either.page, "shoal_ready_version", model="dull") == 1, "version 1 is up everywhere")
    shutil.copytree(broken, either.models / "dull" / ".2.partial")
    (either.models / "dull" / ".2.partial" / "model.onnx").write_bytes(b"no graph")
    (either.models / "dull" / ".2.partial").rename(either.models / "dull" / "2")
    wait_until(lambda: value(either.page, "shoal_failed_version", model="dull") == 2, "version 2 failed")
    page = either.page
    assert value(page, "shoal_failed_version", model="dull", reason="BundleError") == 2
    assert value(page, "shoal_ready_version", model="dull") == 1
    assert value(page, "shoal_load_failures_total", model="dull", reason="BundleError") >= 1
    shutil.rmtree(either.models / "dull" / "2")
    wait_until(lambda: value(either.page, "shoal_failed_version", model="dull") == 0, "the bad version is forgotten")


def test_no_total_drops_when_a_worker_dies_and_its_memory_is_not_told(two: Measured) -> None:
    totals = ("shoal_requests_total", "shoal_request_seconds_count", "shoal_batcher_batches_total")
    ask(two.server)
    before = [value(two.page, name) for name in totals]
    restarts = value(two.page, "shoal_worker_restarts_total")
    os.kill(worker_pids(two.server.process.pid)[0], signal.SIGKILL)
    wait_until(lambda: value(two.page, "shoal_worker_restarts_total") == restarts + 1, "the crash is noticed")
    assert [value(two.page, name) for name in totals] >= before
    wait_until(lambda: value(two.page, "shoal_workers") == 2, "two workers")
    page = two.page
    memory = [sample.value for sample in families(page)["shoal_worker_memory_bytes"].samples]
    rest = value(page, "process_resident_memory_bytes") - sum(memory)  # the supervisor's, and not the dead worker's
    assert 0 < rest < min(memory)


def test_what_a_replaced_worker_counted_after_the_last_scrape_counts_too(two: Measured) -> None:
    totals = ("shoal_requests_total", "shoal_request_seconds_count")
    before, workers = [value(two.page, name) for name in totals], set(worker_pids(two.server.process.pid))
    ask(two.server)
    two.server.signal(signal.SIGHUP)
    wait_until(
        lambda: len(now := set(worker_pids(two.server.process.pid))) == 2 and not now & workers, "two other workers"
    )
    assert [value(two.page, name) for name in totals] == [count + REQUESTS for count in before]


def test_clients_over_their_own_limit_are_refusals_of_a_kind_of_their_own(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "grey", 1)
    port = free_port()
    flags = ("--metrics-port", str(port), "--rate-limit-per-s", "0.001")
    with run_server(tmp_path / "models", tmp_path / "server", *flags) as server:
        with Http(server.http_port) as http:
            answers = [http.predict(picture(1), "image/png").status for _ in range(4)]
            answers.append(http.get("/model-info").status)
        with server.channel() as channel:
            request = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[picture(1)]))
            call = pb_grpc.ClassifierStub(channel).Classify.future(request, timeout=10)
            answers.append(429 if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else 200)
        page = read(port)
    assert answers.count(429) >= 4
    assert answers[-2:] == [429, 429]
    assert value(page, "shoal_refusals_total", reason="rate_limit") == answers.count(429)
    assert value(page, "shoal_requests_total", outcome="RateLimited") == answers.count(429)


def test_a_port_for_metrics_that_is_taken_is_a_fault(one: Measured, tmp_path: Path) -> None:
    taken = str(one.metrics_port)
    flags = ("--models", str(one.models), "--http-port", "0", "--grpc-port", "0", "--metrics-port", taken)
    done = run_to_end(*flags, "--workers", "1")
    assert done.returncode == 2
    assert f"error: --metrics-port: expected a free port on 127.0.0.1, received {taken}" in done.stderr


def test_metrics_do_not_share_a_port() -> None:
    done = run_to_end("--http-port", "9000", "--grpc-port", "9001", "--metrics-port", "9001")
    assert done.returncode == 2
    assert "a port for metrics that is neither HTTP's nor gRPC's" in done.stderr
