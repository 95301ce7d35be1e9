from typing import Any

from structlog.testing import capture_logs

from server.errors import InferenceFailed, InvalidInput
from server.request_log import LINES_PER_S, RequestLog
from server.tensors import InferRequest, Timing


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def request(name: str = "r-1") -> InferRequest:
    return InferRequest(request_id=name, protocol="grpc")


def of(entry: Any) -> tuple[Any, ...]:
    return tuple(entry[key] for key in ("event", "request_id", "protocol", "model", "version"))


def test_a_request_that_the_model_failed_is_logged_and_a_callers_fault_is_not() -> None:
    requests = RequestLog()
    with capture_logs() as logs:
        requests.failed(InferenceFailed("out of memory"), request(), "grey", 3)
        requests.failed(InvalidInput("no picture"), request(), "grey", 3)
    (entry,) = logs
    assert of(entry) == ("inference failed", "r-1", "grpc", "grey", 3)
    assert (entry["log_level"], entry["reason"]) == ("error", "out of memory")


def test_slow_ones_are_logged_with_their_stages() -> None:
    requests = RequestLog(slow_s=0.5)
    with capture_logs() as logs:
        requests.finished(request("quick"), "grey", 3, "ok", 0.49, Timing(1, 2, 3))
        requests.finished(request("slow"), "grey", 3, "ok", 0.6, Timing(1500, 400_000, 198_000))
        requests.finished(request("late"), "", 0, "DeadlineExceeded", 0.7, None)
    assert [entry["request_id"] for entry in logs] == ["slow", "late"]
    assert of(logs[0]) == ("slow request", "slow", "grpc", "grey", 3)
    told = ("took_ms", "decode_ms", "queue_ms", "infer_ms")
    assert [logs[0][key] for key in told] == [600, 1.5, 400, 198]
    assert logs[1]["outcome"] == "DeadlineExceeded"


def test_a_flood_is_told_by_its_number() -> None:
    clock = Clock()
    requests = RequestLog(slow_s=0.1, clock=clock)
    with capture_logs() as logs:
        for _ in range(LINES_PER_S + 7):
            requests.finished(request(), "grey", 1, "ok", 1.0, None)
        clock.now_s += 1
        requests.finished(request(), "grey", 1, "ok", 1.0, None)
        requests.finished(request(), "grey", 1, "ok", 1.0, None)
    assert len(logs) == LINES_PER_S + 2
    assert [entry.get("unsaid") for entry in logs[-3:]] == [None, 7, None]
