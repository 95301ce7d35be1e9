"""Traces of a real server, as a real receiver of OTLP gets them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.otlp_receiver import Receiver, attributes, run_receiver
from tests.wire.server_process import ROOT, ServerProcess, run_server, run_to_end

pytestmark = pytest.mark.slow
CALLER = "00f067aa0ba902b7"
STAGES = ("decode", "queue", "infer")


@dataclass(frozen=True)
class Sent:
    """What a server has told of the requests that were sent to it."""

    receiver: Receiver
    timing: str
    log: list[dict[str, object]]


def trace(number: int) -> str:
    return f"{number:032x}"


def parent(number: int, *, sampled: bool = True) -> str:
    return f"00-{trace(number)}-{CALLER}-0{int(sampled)}"


@pytest.fixture(scope="module", params=["grpcio", "native"])
def sent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """One request of each kind, and the server's end, which sends what was not sent yet."""
    if request.param == "native":
        pytest.importorskip("pygrpc_native")
    folder = tmp_path_factory.mktemp("traced")
    write_bundle(folder / "models", "grey", 1)
    with run_receiver() as receiver:
        flags = (
            "--traces",
            receiver.url,
            "--traces-share",
            "0",
            "--log-slow-ms",
            "0.001",
            "--grpc-host",
            request.param,
        )
        with run_server(folder / "models", folder / "server", *flags) as server:
            timing = send_by_http(server)
            send_by_grpc(server)
        yield Sent(receiver, timing, [json.loads(line) for line in server.log.splitlines() if line.startswith("{")])


def send_by_http(server: ServerProcess) -> str:
    """Where the time of the first went, as the server has told its caller."""
    with Http(server.http_port) as http:
        first = http.predict(picture(250), "image/png", traceparent=parent(1), X_Request_Id="mine")
        assert first.status == 200
        assert http.predict(b"no picture", "image/png", traceparent=parent(2)).status == 415
        assert http.predict(picture(250), "image/png", traceparent=parent(3, sampled=False)).status == 200
        assert http.predict(picture(250), "image/png", traceparent="nonsense").status == 200
        assert http.predict(picture(250), "image/png").status == 200
        assert http.predict(v2(), path="/v2/models/grey/infer", traceparent=parent(4)).status == 200
    return first.headers["Server-Timing"]


def v2() -> dict[str, object]:
    rows = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0] * 64}
    return {"inputs": [rows]}


def send_by_grpc(server: ServerProcess) -> None:
    request = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[picture(250)]))
    with server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        stub.Classify(request, timeout=10, metadata=(("traceparent", parent(5)),))
        answers = stub.ClassifyStream(iter([request] * 2), timeout=10, metadata=(("traceparent", parent(6)),))
        assert len(list(answers)) == 2
        stub.Classify(request, timeout=10)


def test_a_request_is_a_span_of_its_callers_trace_and_its_stages_are_inside(sent: Sent) -> None:
    spans = sent.receiver.of_trace(trace(1))
    assert spans.keys() == {"infer grey", *STAGES}
    whole = spans["infer grey"]
    assert whole.parent_span_id.hex() == CALLER
    assert whole.kind == Span.SPAN_KIND_SERVER
    assert whole.status.code == Status.STATUS_CODE_UNSET
    assert attributes(whole) == {
        "shoal.protocol": "http",
        "shoal.model": "grey",
        "shoal.version": 1,
        "shoal.outcome": "ok",
        "shoal.request_id": "mine",
    }
    assert all(spans[stage].parent_span_id == whole.span_id for stage in STAGES)


def test_stages_follow_each_other_and_none_outlasts_the_request(sent: Sent) -> None:
    spans = sent.receiver.of_trace(trace(1))
    times = [time for stage in STAGES for time in (spans[stage].start_time_unix_nano, spans[stage].end_time_unix_nano)]
    assert times == sorted(times)
    assert times[0] == spans["infer grey"].start_time_unix_nano
    assert times[-1] <= spans["infer grey"].end_time_unix_nano + 1000  # stages are whole microseconds
    told = [round(float(ms) * 1e6) for ms in re.findall(r"(?:decode|queue|infer);dur=([\d.]+)", sent.timing)]
    assert [spans[stage].end_time_unix_nano - spans[stage].start_time_unix_nano for stage in STAGES] == told
    assert sum(told) > 0


def test_one_that_fails_says_with_what(sent: Sent) -> None:
    (span,) = sent.receiver.of_trace(trace(2)).values()
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "UnsupportedImage")


def test_what_the_caller_does_not_sample_is_not_sampled_nor_what_nobody_traces(sent: Sent) -> None:
    traced = {span.trace_id.hex() for span in sent.receiver.spans}
    assert traced == {trace(number) for number in (1, 2, 4, 5, 6)}


def test_every_protocol_keeps_the_trace(sent: Sent) -> None:
    found = {number: sent.receiver.of_trace(trace(number))["infer grey"] for number in (1, 4, 5, 6)}
    assert [attributes(span)["shoal.protocol"] for span in found.values()] == ["http", "v2_http", "grpc", "grpc"]
    assert {span.parent_span_id.hex() for span in found.values()} == {CALLER}
    in_stream = [span for span in sent.receiver.spans if span.trace_id.hex() == trace(6) and span.name == "infer grey"]
    assert len(in_stream) == 2


def test_they_go_where_collectors_listen_under_the_servers_name(sent: Sent) -> None:
    assert sent.receiver.paths == {"/v1/traces"}
    assert sent.receiver.services == {"shoal"}


def test_slow_requests_are_logged_with_their_ids(sent: Sent) -> None:
    (entry,) = [entry for entry in sent.log if entry.get("request_id") == "mine"]
    assert entry["event"] == "slow request"
    assert (entry["protocol"], entry["model"], entry["version"], entry["outcome"]) == ("http", "grey", 1, "ok")
    assert {"took_ms", "decode_ms", "queue_ms", "infer_ms"} <= entry.keys()
    assert entry["trace_id"] == trace(1)
    untraced = [entry for entry in sent.log if entry["event"] == "slow request" and "trace_id" not in entry]
    assert len(untraced) == 3  # two without a traceparent, and one with a nonsensical one


def test_a_share_of_what_nobody_traces_begins_a_trace(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "grey", 1)
    with run_receiver() as receiver:
        flags = ("--traces", f"{receiver.url}/elsewhere", "--traces-share", "1", "--workers", "2")
        with run_server(tmp_path / "models", tmp_path / "server", *flags) as server:
            for _ in range(6):
                with Http(server.http_port) as http:
                    assert http.predict(picture(250), "image/png").status == 200
    whole = [span for span in receiver.spans if span.name == "infer grey"]
    assert len(whole) == len({span.trace_id for span in whole}) == 6
    assert all(not span.parent_span_id for span in whole)
    assert receiver.paths == {"/elsewhere"}


def test_a_collector_that_is_away_fails_no_request_and_keeps_no_server_from_its_end(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "grey", 1)
    with run_receiver() as gone:
        url = gone.url
    flags = ("--traces", url, "--traces-share", "1")
    with run_server(tmp_path / "models", tmp_path / "server", *flags) as server, Http(server.http_port) as http:
        assert http.predict(picture(250), "image/png").status == 200
    assert server.process.returncode == 0


def test_an_address_that_is_none_is_a_fault(tmp_path: Path) -> None:
    write_bundle(tmp_path, "grey", 1)
    done = run_to_end(
        "--models", str(tmp_path), *("--http-port", "0", "--grpc-port", "0", "--workers", "1"), "--traces", "x"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --traces: expected a URL such as http://collector:4318, received 'x'"


def test_nothing_of_opentelemetry_is_imported_without_traces() -> None:
    code = "import sys, server.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
