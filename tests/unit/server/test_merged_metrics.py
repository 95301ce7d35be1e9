from server.merged_metrics import merge, total

ONE = b"""# HELP shoal_requests_total Requests by outcome.
# TYPE shoal_requests_total counter
shoal_requests_total{outcome="ok",protocol="http"} 3.0
shoal_requests_total{outcome="Overloaded",protocol="http"} 1.0
# HELP shoal_request_seconds Latency.
# TYPE shoal_request_seconds histogram
shoal_request_seconds_bucket{le="0.1"} 2.0
shoal_request_seconds_bucket{le="+Inf"} 3.0
shoal_request_seconds_count 3.0
shoal_request_seconds_sum 0.5
# HELP shoal_queue_rows Rows that wait.
# TYPE shoal_queue_rows gauge
shoal_queue_rows{model="m"} 5.0
# HELP shoal_batch_cost_seconds Measured time of a batch.
# TYPE shoal_batch_cost_seconds gauge
shoal_batch_cost_seconds{rows="1"} 0.25
"""
TWO = ONE.replace(b" 3.0", b" 10.0").replace(b"0.25", b"0.5").replace(b'outcome="Overloaded"', b'outcome="Draining"')


def lines(text: bytes) -> set[str]:
    return {line for line in text.decode().splitlines() if not line.startswith("#")}


def test_counters_and_histograms_add_up() -> None:
    merged = lines(merge([ONE, TWO]))
    assert 'shoal_requests_total{outcome="ok",protocol="http"} 13.0' in merged
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
    assert 'shoal_queue_rows{model="m"} 10.0' in merged
    assert 'shoal_batch_cost_seconds{rows="1"} 0.5' in merged


def test_one_worker_is_left_as_it_is() -> None:
    assert lines(merge([ONE])) == lines(ONE)
    assert lines(merge([ONE, b""])) == lines(ONE)


def test_help_and_type_are_told_once() -> None:
    merged = merge([ONE, TWO]).decode()
    assert merged.count("# TYPE shoal_requests_total counter") == 1


def test_total_sums_over_labels() -> None:
    assert total(ONE, "shoal_requests_total") == 4.0
    assert total(b"", "shoal_requests_total") == 0.0
