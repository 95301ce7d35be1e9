from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from server.batcher import BatcherStatistics
from server.decode_pool import DecodeStatistics
from server.errors import Overloaded
from server.metrics import LATENCY_BUCKETS_S, OK, REFUSALS, Histogram, Metrics, ServedVersion
from server.metrics_families import about
from server.shadow import ShadowStatistics
from server.tensors import Timing


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


GREY = {"protocol": "http", "model": "grey", "version": "1"}


def test_requests_are_counted_by_outcome() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.record("http", "grey", 1, OK, 0.004, Timing(100, 200, 3000))
    metrics.record("http", "grey", 1, "Overloaded", 0.0001)
    metrics.record("grpc", "", 0, "InvalidInput", 0.0)
    assert value(metrics, "shoal_requests_total", outcome="ok", **GREY) == 3
    assert value(metrics, "shoal_requests_total", outcome="Overloaded", **GREY) == 1
    assert value(metrics, "shoal_requests_total", protocol="grpc", model="", version="", outcome="InvalidInput") == 1


def test_latencies_fall_into_running_totals() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.005, 0.19, 0.21, 99.0):
        metrics.record("http", "grey", 1, OK, seconds)
    assert value(metrics, "shoal_request_seconds_bucket", le="0.003", **GREY) == 0
    assert value(metrics, "shoal_request_seconds_bucket", le="0.005", **GREY) == 2
    assert value(metrics, "shoal_request_seconds_bucket", le="0.2", **GREY) == 3
    assert value(metrics, "shoal_request_seconds_bucket", le="0.225", **GREY) == 4
    assert value(metrics, "shoal_request_seconds_bucket", le="10.0", **GREY) == 4
    assert value(metrics, "shoal_request_seconds_bucket", le="+Inf", **GREY) == 5
    assert value(metrics, "shoal_request_seconds_count", **GREY) == 5
    assert value(metrics, "shoal_request_seconds_sum", **GREY) == 0.004 + 0.005 + 0.19 + 0.21 + 99.0


def test_stages_are_told_in_seconds() -> None:
    metrics = Metrics()
    metrics.record("http", "grey", 1, OK, 0.01, Timing(decode_us=100, queue_us=2000, infer_us=30_000))
    metrics.record("http", "grey", 1, OK, 0.05, Timing(queue_us=30_000))
    for stage, seconds in (("decode", 1e-4), ("queue", 3.2e-2), ("infer", 3e-2), ("other", 2e-2)):
        assert abs(value(metrics, "shoal_stage_seconds_sum", stage=stage, **GREY) - seconds) < 1e-12


def test_buckets_stand_close_around_the_budget() -> None:
    assert list(LATENCY_BUCKETS_S) == sorted(set(LATENCY_BUCKETS_S))
    assert 0.2 in LATENCY_BUCKETS_S
    assert len([bound for bound in LATENCY_BUCKETS_S if 0.15 <= bound <= 0.25]) >= 5


def test_a_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for number in (1.0, 1.5, 2.0, 2.1):
        histogram.observe(number)
    assert histogram._counts == [1, 2, 1]


def test_everyones_statistics_appear_at_a_scrape() -> None:
    metrics = Metrics()
    numbers = BatcherStatistics(
        queued_rows=4,
        queued_bytes=99,
        running_rows=2,
        batches=3,
        rows=11,
        expired=5,
        cancelled=6,
        failed=7,
        refused=8,
        batch_rows={1: 2, 9: 1},
    )
    metrics.versions = lambda: [ServedVersion("grey", 1, "int8", ("cuda", "cpu"), numbers, {1: 0.001, 8: 0.005})]
    metrics.decoding = lambda: DecodeStatistics(inline=1, pooled=2, pending=3, refused=4, cost_s=0.5)
    metrics.shadows = lambda: [ShadowStatistics("grey", 1, 2, requests=10, rows=20, agreed_rows=19)]
    metrics.connections = lambda: 5
    metrics.count_event("grey", "ready", 1, took_s=2.5)
    metrics.count_event("grey", "ready", 9, took_s=9.0)
    of_grey = {"model": "grey", "version": "1"}
    assert value(metrics, "shoal_model", variant="int8", providers="cuda,cpu", **of_grey) == 1
    assert value(metrics, "shoal_queued_rows", **of_grey) == 4
    assert value(metrics, "shoal_batcher_refused_total", **of_grey) == 8
    assert value(metrics, "shoal_batch_cost_seconds", rows="8", **of_grey) == 0.005
    assert value(metrics, "shoal_batch_rows_bucket", le="8", **of_grey) == 2
    assert value(metrics, "shoal_batch_rows_bucket", le="16", **of_grey) == 3
    assert value(metrics, "shoal_batch_rows_sum", **of_grey) == 11
    assert value(metrics, "shoal_decoded_images_total", where="pool") == 2
    assert value(metrics, "shoal_shadow_agreed_rows_total", shadow="2", **of_grey) == 19
    assert value(metrics, "shoal_model_events_total", model="grey", event="ready") == 2
    assert value(metrics, "shoal_load_seconds", **of_grey) == 2.5
    assert ("shoal_load_seconds", frozenset({("model", "grey"), ("version", "9")})) not in samples(metrics)
    assert value(metrics, "shoal_connections", slot="0") == 5


@dataclass
class State:
    name: str
    version: int
    state: str


def test_the_newest_version_that_is_up_and_the_newest_that_failed() -> None:
    metrics = Metrics()
    metrics.states = lambda: [State("grey", 1, "ready"), State("grey", 2, "ready"), State("grey", 3, "failed")]
    metrics.count_event("grey", "failed", 3, "BundleError")
    assert value(metrics, "shoal_ready_version", model="grey") == 2
    assert value(metrics, "shoal_failed_version", model="grey", reason="BundleError") == 3
    assert value(metrics, "shoal_load_failures_total", model="grey", reason="BundleError") == 1
    metrics.states = lambda: [State("grey", 3, "ready")]
    metrics.count_event("grey", "ready", 3)
    assert value(metrics, "shoal_ready_version", model="grey") == 3
    assert not [name for name, _ in samples(metrics) if name == "shoal_failed_version"]


def test_refusals_are_counted_by_the_bound_that_was_met() -> None:
    metrics = Metrics()
    assert metrics.note(Overloaded("later", reason="queue_full")) == "Overloaded"
    assert metrics.note(Overloaded("later")) == "Overloaded"
    assert metrics.note(KeyError("no refusal")) == "KeyError"
    metrics.count_refusal("congestion")
    told = {reason: value(metrics, "shoal_refusals_total", reason=reason) for reason in REFUSALS}
    assert told == dict.fromkeys(REFUSALS, 0) | {"queue_full": 1, "late": 1, "congestion": 1}


def test_what_was_refused_unread_is_told_like_any_other_refusal() -> None:
    metrics = Metrics()
    nobody = {"model": "", "version": ""}
    for scrape in (1, 2):
        metrics.count_shed("http")
        assert value(metrics, "shoal_requests_total", protocol="http", outcome="Overloaded", **nobody) == scrape
    metrics.count_shed("v2_http")
    assert value(metrics, "shoal_request_seconds_count", protocol="v2_http", **nobody) == 1
    assert value(metrics, "shoal_refusals_total", reason="congestion") == 3


def test_whoever_has_something_to_tell_can() -> None:
    metrics = Metrics()
    metrics.sources.append(lambda: about("1.2", 0.25))
    assert value(metrics, "shoal_info", version="1.2") == 1
    assert value(metrics, "shoal_latency_budget_seconds") == 0.25


def test_a_server_without_a_request_has_a_page_too() -> None:
    page = Metrics().render().decode()
    assert "process_cpu_seconds_total" in page
    assert "python_info" in page
