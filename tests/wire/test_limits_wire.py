"""What a client may ask for, how fast, how slowly, and from which pages: real servers, real sockets."""

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from server.auth_keys import make_key
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server

pytestmark = pytest.mark.slow  # each starts from a server process

PICTURE = picture(200)
CLASSIFY = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[PICTURE]))
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n"
# A header that the hot path leaves to aiohttp, and that changes nothing there.
ASIDE = b"Cookie: a=b\r\n"
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    return models


# ---- time: clients that begin and do not finish ----


@pytest.fixture(scope="module")
def patient(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits a second, and lets one page of another origin in."""
    flags = ("--request-timeout-s", "1", "--latency-budget-ms", "5000", "--cors-origins", PAGE)
    with run_server(models, tmp_path_factory.mktemp("patient"), *flags) as server:
        yield server


@contextlib.contextmanager
def connection(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as opened:
        yield opened


def read_to_end(opened: socket.socket) -> bytes:
    parts = bytearray()
    with contextlib.suppress(ConnectionResetError):  # it may close while something of ours is on the way
        while part := opened.recv(1 << 16):
            parts += part
    return bytes(parts)


def drip(opened: socket.socket, data: bytes) -> None:
    """Sends a byte now and then, until the other side has had enough."""
    opened.settimeout(0.1)
    for byte in data:
        with contextlib.suppress(TimeoutError):
            if opened.recv(1, socket.MSG_PEEK) is not None:
                break
        with contextlib.suppress(OSError):
            opened.sendall(bytes([byte]))
    opened.settimeout(20)


@pytest.mark.parametrize("at_once", [1, 40], ids=["a byte", "some lines"])
def test_a_head_that_drips_in_is_not_waited_for(patient: ServerProcess, at_once: int) -> None:
    head = HEAD % 1000 + b"X-A: " + b"a" * 1000
    with connection(patient) as slow:
        slow.sendall(head[:at_once])
        drip(slow, head[at_once:])
        answer = read_to_end(slow)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"--request-timeout-s" in answer


@pytest.mark.parametrize("aside", [b"", ASIDE], ids=["hot", "aiohttp"])
def test_a_body_that_drips_in_is_not_waited_for(patient: ServerProcess, aside: bytes) -> None:
    with connection(patient) as slow:
        slow.sendall(HEAD % 1000 + aside + b"\r\n")
        drip(slow, b"a" * 999)
        assert read_to_end(slow).startswith(b"HTTP/1.1 408 ")


def test_many_slow_clients_keep_nobody_from_an_answer(patient: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connection(patient)) for _ in range(200)]
        for opened in slow:
            opened.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        with Http(patient.http_port) as http:
            assert [http.predict(PICTURE).status for _ in range(10)] == [200] * 10
        assert all(read_to_end(opened).startswith(b"HTTP/1.1 408 ") for opened in slow)


@pytest.mark.parametrize("aside", [b"", ASIDE], ids=["hot", "aiohttp"])
def test_who_is_idle_between_requests_is_left_alone(patient: ServerProcess, aside: bytes) -> None:
    with connection(patient) as kept, connection(patient) as other:
        for _ in range(2):
            kept.sendall(HEAD % len(PICTURE) + aside + b"\r\n" + PICTURE)
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            other.sendall(b"P")
            read_to_end(other)  # more than a second: the server has given this one up


# ---- pages of other origins ----


def test_the_page_that_was_named_may_read_answers_and_no_other(patient: ServerProcess) -> None:
    with Http(patient.http_port) as http:
        named = http.predict(PICTURE, Origin=PAGE)
        refused = http.predict(b"no picture", Origin=PAGE)
        other = http.predict(PICTURE, Origin="https://other.example")
        none = http.predict(PICTURE)
    for answer in (named, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Vary"] == "Origin"
    assert (named.status, refused.status, other.status, none.status) == (200, 415, 200, 200)
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Access-Control-Allow-Origin" not in none.headers


def test_a_browser_is_told_what_that_page_may_send(patient: ServerProcess) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with Http(patient.http_port) as http:
        answer = http.ask("OPTIONS", "/predict", None, asked)
        other = http.ask("OPTIONS", "/predict", None, asked | {"Origin": "https://other.example"})
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Origin" not in other.headers


# ---- how much ----


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def limited(
    models: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[ServerProcess, Callable[[], str]]]:
    """A server that takes five requests a second of each client, and makes clients."""
    folder = tmp_path_factory.mktemp("limited")
    made = [make_key(f"client-{number}", ["predict"]) for number in range(12)]
    (folder / "keys").write_text("".join(f"{line}\n" for _, line in made))
    left = iter(made)
    flags = ("--rate-limit-per-s", "5", "--api-keys", str(folder / "keys"), "--latency-budget-ms", "5000")
    with run_server(models, folder / "run", *flags, "--workers", request.param) as server:
        yield server, lambda: next(left)[0]


def test_one_client_s_rate_is_kept_over_all_workers_and_both_ports(
    limited: tuple[ServerProcess, Callable[[], str]],
) -> None:
    server, new_client = limited
    key, other = new_client(), new_client()
    began_s = time.monotonic()
    answers = []
    for _ in range(20):
        with Http(server.http_port) as http:  # a connection of its own, so that each worker has its share of them
            answers.append(http.predict(PICTURE, X_API_Key=key))
    statuses = [answer.status for answer in answers]
    took_s = time.monotonic() - began_s
    assert 5 <= statuses.count(200) <= 5 + 5 * took_s + 1
    assert set(statuses) == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.json["type"], refused.headers["Retry-After"]) == ("urn:shoal:rate-limited", "1")
    with Http(server.http_port) as http:
        assert http.predict(PICTURE, X_API_Key=other).status == 200
        assert [http.get("/health/live").status for _ in range(20)] == [200] * 20


def test_grpc_is_refused_in_its_own_words(limited: tuple[ServerProcess, Callable[[], str]]) -> None:
    server, new_client = limited
    metadata = (("x-api-key", new_client()),)
    with server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        calls = [stub.Classify.future(CLASSIFY, metadata=metadata, timeout=9) for _ in range(30)]
        codes = [call.code() for call in calls]
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(20):
            health.Check(health_pb2.HealthCheckRequest(), timeout=9)
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= 5
    refused = calls[codes.index(grpc.StatusCode.RESOURCE_EXHAUSTED)]
    assert "at most 5 requests per second from one client" in str(refused.details())


def test_a_stream_is_slowed_down_and_loses_nothing(limited: tuple[ServerProcess, Callable[[], str]]) -> None:
    server, new_client = limited
    began_s = time.monotonic()
    with server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        requests = (pb.ClassifyRequest(id=str(number), encoded=CLASSIFY.encoded) for number in range(9))
        answers = list(stub.ClassifyStream(requests, metadata=(("x-api-key", new_client()),), timeout=20))
    assert sorted(answer.id for answer in answers) == [str(number) for number in range(9)]
    assert time.monotonic() - began_s >= 4 / 5 - 0.1  # five at once, and four more at five a second


def test_the_refusals_are_counted(limited: tuple[ServerProcess, Callable[[], str]], tmp_path: Path) -> None:
    server, new_client = limited
    key = new_client()
    with Http(server.http_port) as http:
        while http.predict(PICTURE, X_API_Key=key).status != 429:
            pass
    assert '"refused"' in server.log
    assert not re.search(r"shoal_[A-Za-z0-9_-]{43}", server.log)


def test_an_address_is_one_client_by_every_protocol_where_nobody_is_asked(models: Path, tmp_path: Path) -> None:
    flags = ("--grpc-host", "auto", "--rate-limit-per-s", "0.01", "--latency-budget-ms", "5000")
    with run_server(models, tmp_path, *flags) as server:
        with Http(server.http_port) as http:
            assert [http.predict(PICTURE).status for _ in range(2)] == [200, 429]
        with server.channel() as channel:
            stub = pb_grpc.ClassifierStub(channel)
            unary = stub.Classify.future(CLASSIFY, timeout=9)
            stream = stub.ClassifyStream(iter([CLASSIFY]), timeout=9)
            assert [unary.code(), stream.code()] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2


def test_so_many_at_a_time_for_each_address_where_nobody_is_asked(models: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "slow", 1, work=600)
    flags = ("--max-concurrent-per-client", "2", "--latency-budget-ms", "60000")
    with run_server(tmp_path / "models", tmp_path / "run", *flags) as server:

        def predict(_: int) -> tuple[int, str]:
            with Http(server.http_port) as http:
                answer = http.predict(PICTURE)
                return answer.status, str(answer.json.get("type"))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(predict, range(24)))
        assert (200, "None") in answers
        assert set(answers) <= {(200, "None"), (429, "urn:shoal:rate-limited")}
        assert (429, "urn:shoal:rate-limited") in answers
        assert predict(0)[0] == 200
