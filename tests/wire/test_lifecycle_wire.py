"""How a server starts, stops and changes versions, seen from outside."""

import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server, run_to_end

pytestmark = pytest.mark.slow  # each starts a server process
LIMIT_S = 20
PATIENT = ("--latency-budget-ms", "20000")
SLOW = 700  # a batch of this much work takes about 0.1 s
REQUEST = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[picture(250)]))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_s, f"waited in vain for {what}"
        time.sleep(0.01)


def metric(server: ServerProcess, name: str) -> float:
    with Http(server.http_port) as http:
        lines = http.get("/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


def in_flight(server: ServerProcess) -> float:
    return metric(server, "shoal_running_rows") + metric(server, "shoal_queued_rows")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "grey", 1)
    return tmp_path / "models"


@pytest.fixture
def slow_models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "slow", 1, work=SLOW)
    return tmp_path / "models"


# ---- stopping ----


def test_sigterm_answers_everything_that_was_accepted(slow_models: Path, tmp_path: Path) -> None:
    with run_server(slow_models, tmp_path / "run", *PATIENT, "--max-batch-rows", "1") as server:
        with ThreadPoolExecutor(24) as pool, server.channel() as channel:
            stub = pb_grpc.ClassifierStub(channel)
            by_http = [pool.submit(predict_status, server) for _ in range(10)]
            by_grpc = [pool.submit(stub.Classify, REQUEST, timeout=LIMIT_S) for _ in range(10)]
            stream = stub.ClassifyStream(iter([REQUEST] * 4), timeout=LIMIT_S)
            wait_until(lambda: in_flight(server) + metric(server, "shoal_requests_total") >= 24, "all to be accepted")
            assert in_flight(server) > 0, "too fast a model to test anything"
            server.signal(signal.SIGTERM)
            assert [future.result() for future in by_http] == [200] * 10
            assert [future.result().predictions[0].classes[0].label for future in by_grpc] == ["bright"] * 10
            assert [answer.predictions[0].classes[0].label for answer in stream] == ["bright"] * 4
        assert server.wait() == 0
        assert "Traceback" not in server.log


def predict_status(server: ServerProcess) -> int:
    with Http(server.http_port) as http:
        return http.predict(picture(250)).status


def test_a_body_on_its_way_at_the_signal_is_still_answered(models: Path, tmp_path: Path) -> None:
    body = picture(250)
    with run_server(models, tmp_path / "run", *PATIENT) as server:
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=LIMIT_S) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:20])
            time.sleep(0.2)  # the server has no sign to give that it has read half a body
            server.signal(signal.SIGTERM)
            time.sleep(0.5)
            client.sendall(body[20:])
            answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        assert server.wait() == 0


def test_the_grace_is_unready_but_accepting(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path / "run", "--drain-grace-s", "1.5") as server, server.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with Http(server.http_port) as http:
            answer = http.get("/health")
            assert (answer.status, answer.json["status"]) == (503, "draining")
            assert http.get("/health/live").status == 200
            accepted = http.predict(picture(250))
        assert accepted.status == 200
        assert accepted.headers["Connection"] == "close"
        assert server.wait() == 0


def test_open_streams_watches_and_idle_connections_do_not_hold_up_a_stop(models: Path, tmp_path: Path) -> None:
    with (
        run_server(models, tmp_path / "run", "--drain-timeout-s", "25") as server,
        server.channel() as channel,
        socket.create_connection(("127.0.0.1", server.http_port)) as idle,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(watch)
        done = threading.Event()

        def requests() -> Iterator[pb.ClassifyRequest]:
            yield REQUEST
            done.wait(LIMIT_S)

        stream = pb_grpc.ClassifierStub(channel).ClassifyStream(requests())
        assert next(stream).predictions
        began_s = time.monotonic()
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "open the stream again" in str(raised.value.details())
        assert server.wait() == 0
        assert time.monotonic() - began_s < 10, "something waited for the time-out"
        assert idle.recv(1) == b""
        done.set()


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "slow", 1, work=1200)
    with (
        run_server(tmp_path / "models", tmp_path / "run", *PATIENT, "--max-batch-rows", "1") as server,
        ThreadPoolExecutor(8) as pool,
    ):
        futures = [pool.submit(predict_or_fail, server) for _ in range(8)]
        wait_until(lambda: in_flight(server) >= 8, "requests in flight")
        server.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.log, "the drain")
        server.signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        assert None in [future.result() for future in futures]


def predict_or_fail(server: ServerProcess) -> int | None:
    try:
        return predict_status(server)
    except (OSError, HTTPException):
        return None


# ---- versions ----


def test_a_new_version_takes_over_and_no_request_fails(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path / "run", *PATIENT, "--poll-interval-s", "0.05") as server:
        stop = threading.Event()
        with ThreadPoolExecutor(4) as pool, server.channel() as channel:
            by_http = [pool.submit(ask_http_until, server, stop) for _ in range(2)]
            by_grpc = [pool.submit(ask_grpc_until, channel, stop) for _ in range(2)]
            write_bundle(models, "grey", 2)
            with Http(server.http_port) as http:
                wait_until(lambda: http.get("/health").json["version"] == 2, "version 2")
                write_bundle(models, "grey", 3)
                wait_until(lambda: http.get("/health").json["version"] == 3, "version 3")
            stop.set()
            seen = sum((future.result() for future in [*by_http, *by_grpc]), Counter())
        assert {outcome for outcome, _ in seen} == {"ok"}
        assert {version for _, version in seen} == {1, 2, 3}


def ask_http_until(server: ServerProcess, stop: threading.Event) -> Counter[tuple[str, int]]:
    seen: Counter[tuple[str, int]] = Counter()
    with Http(server.http_port) as http:
        while not stop.is_set():
            answer = http.predict(picture(250))
            right = answer.status == 200 and answer.json["labels"] == ["bright"]
            seen["ok" if right else str(answer.body), answer.json.get("version", 0)] += 1
    return seen


def ask_grpc_until(channel: grpc.Channel, stop: threading.Event) -> Counter[tuple[str, int]]:
    stub, seen = pb_grpc.ClassifierStub(channel), Counter[tuple[str, int]]()
    while not stop.is_set():
        answer = stub.Classify(REQUEST, timeout=LIMIT_S)
        seen["ok" if answer.predictions[0].classes[0].label == "bright" else str(answer), answer.version] += 1
    return seen


def test_a_damaged_version_is_refused_and_the_old_one_goes_on(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path / "run", "--poll-interval-s", "0.05") as server, Http(server.http_port) as http:
        write_bundle(tmp_path / "elsewhere", "grey", 2)
        graph = tmp_path / "elsewhere" / "grey" / "2" / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"!")
        (tmp_path / "elsewhere" / "grey" / "2").rename(models / "grey" / "2")

        def states() -> dict[int, str]:
            return {entry["version"]: entry["state"] for entry in http.get("/model-info").json["versions"]}

        wait_until(lambda: states().get(2) == "failed", "the damaged version's refusal")
        reason = next(entry["reason"] for entry in http.get("/model-info").json["versions"] if entry["version"] == 2)
        assert "sha256" in reason
        assert http.predict(picture(250)).json["version"] == 1


# ---- callers who leave, deadlines, overload ----


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("slow-models")
    write_bundle(models, "slow", 1, work=SLOW)
    with run_server(models, tmp_path_factory.mktemp("slow"), "--max-batch-rows", "1", *PATIENT) as server:
        yield server


def test_requests_of_clients_that_leave_cost_the_model_nothing(slow_server: ServerProcess) -> None:
    body = picture(250)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    batches, cancelled = metric(slow_server, "shoal_batcher_batches_total"), cancelled_of(slow_server)
    clients = [socket.create_connection(("127.0.0.1", slow_server.http_port)) for _ in range(20)]
    for client in clients:
        client.sendall(head + body)
    wait_until(lambda: in_flight(slow_server) >= 15, "a queue")
    for client in clients:
        client.close()
    wait_until(lambda: cancelled_of(slow_server) >= cancelled + 10, "the requests to be dropped")
    assert predict_status(slow_server) == 200
    assert metric(slow_server, "shoal_batcher_batches_total") - batches < 12


def test_calls_that_are_cancelled_cost_the_model_nothing(slow_server: ServerProcess) -> None:
    batches, cancelled = metric(slow_server, "shoal_batcher_batches_total"), cancelled_of(slow_server)
    with slow_server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        calls = [stub.Classify.future(REQUEST, timeout=LIMIT_S) for _ in range(20)]
        wait_until(lambda: in_flight(slow_server) >= 15, "a queue")
        for call in calls:
            call.cancel()
        wait_until(lambda: cancelled_of(slow_server) >= cancelled + 10, "the calls to be dropped")
        assert stub.Classify(REQUEST, timeout=LIMIT_S).predictions[0].classes[0].label == "bright"
    assert metric(slow_server, "shoal_batcher_batches_total") - batches < 12


def cancelled_of(server: ServerProcess) -> float:
    return metric(server, "shoal_batcher_cancelled_total")


def test_what_cannot_be_answered_in_time_is_refused_at_once(slow_server: ServerProcess) -> None:
    with ThreadPoolExecutor(10) as pool, Http(slow_server.http_port) as http, slow_server.channel() as channel:
        queue = [pool.submit(predict_status, slow_server) for _ in range(10)]
        wait_until(lambda: in_flight(slow_server) >= 8, "a queue")
        answer = http.predict(picture(250), X_Latency_Budget_Ms="150")
        assert answer.status == 429
        assert answer.json["type"] == "urn:shoal:overloaded"
        assert int(answer.headers["Retry-After"]) >= 1
        with pytest.raises(grpc.RpcError) as raised:
            pb_grpc.ClassifierStub(channel).Classify(REQUEST, timeout=0.15)
        assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "grpc-retry-pushback-ms" in [pair.key for pair in raised.value.trailing_metadata() or ()]
        assert [future.result() for future in queue] == [200] * 10


def test_a_deadline_that_passes_while_the_model_runs(slow_server: ServerProcess) -> None:
    with slow_server.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        pb_grpc.ClassifierStub(channel).Classify(REQUEST, timeout=0.02)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert predict_status(slow_server) == 200


# ---- starting: one clear line and exit code 2 ----


def assert_refused(*flags: str, words: tuple[str, ...], **environment: str) -> None:
    ended = run_to_end(*flags, **environment)
    assert ended.returncode == 2, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in errors[0]


def test_a_port_in_use(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        free = ("--models", str(models), "--workers", "1", "--http-port", "0", "--grpc-port", "0")
        assert_refused(*free, "--http-port", port, words=("--http-port", port, "in use"))
        assert_refused(*free, "--grpc-port", port, words=("--grpc-port", port, "in use"))


def test_one_port_for_both() -> None:
    assert_refused("--http-port", "9123", "--grpc-port", "9123", words=("9123", "two different ports"))


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_no_models(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "none")
    assert_refused(
        "--models", str(tmp_path / "none"), "--http-port", "0", "--grpc-port", "0", words=("none", "--models")
    )


def test_a_variant_and_a_provider_that_are_not_there(models: Path) -> None:
    common = ("--models", str(models), "--workers", "1", "--http-port", "0", "--grpc-port", "0")
    assert_refused(*common, "--variant", "int4", words=("int4", "float32"))
    assert_refused(*common, "--providers", "cuda", words=("cuda",))


def test_wrong_settings_wherever_they_come_from() -> None:
    assert_refused("--http-port", "99999", words=("--http-port", "65535", "99999"))
    assert_refused("--nonsense", words=("--nonsense", "--help"))
    assert_refused("--config", "/nowhere.yaml", words=("--config", "/nowhere.yaml"))
    assert_refused(words=("SHOAL_MAX_BATCH_ROWS", "many"), SHOAL_MAX_BATCH_ROWS="many")


def test_an_allowed_fallback_serves_where_there_is_no_gpu(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path / "run", "--providers", "cuda,cpu") as server:
        assert predict_status(server) == 200


def test_the_line_to_paste_works(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path / "run") as server:
        line = next(line for line in server.log.splitlines() if line.startswith("  try "))
        ended = subprocess.run(
            line.removeprefix("  try "), shell=True, capture_output=True, timeout=LIMIT_S, check=True
        )
    assert b'"labels":["dark"]' in ended.stdout
