"""Limits go by what a trusted proxy says of its client's address, on both ports, and by nobody else's word."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server

pytestmark = pytest.mark.slow  # each starts from a server process

PICTURE = picture(200)
CLASSIFY = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[PICTURE]))
FLAGS = ("--rate-limit-per-s", "0.01", "--latency-budget-ms", "5000", "--grpc-host", "auto")
LET_IN, REFUSED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    return models


@pytest.fixture
def behind(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that takes one request of each client, and trusts whoever is on this machine."""
    with run_server(models, tmp_path, *FLAGS, "--trusted-proxies", "127.0.0.0/8") as server:
        yield server


def by_http(server: ServerProcess, forwarded: str, **headers: str) -> int:
    with Http(server.http_port) as http:
        return http.ask("POST", "/predict", PICTURE, {"X-Forwarded-For": forwarded, **headers}).status


def by_grpc(server: ServerProcess, forwarded: str, *, stream: bool) -> grpc.StatusCode:
    metadata = (("x-forwarded-for", forwarded),)
    with server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        try:
            if stream:
                list(stub.ClassifyStream(iter([CLASSIFY]), metadata=metadata, timeout=9))
            else:
                stub.Classify(CLASSIFY, metadata=metadata, timeout=9)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return LET_IN


@pytest.mark.parametrize("aside", [{}, {"Cookie": "a=b"}], ids=["hot", "aiohttp"])
def test_each_client_behind_the_proxy_has_its_own_limit_by_http(behind: ServerProcess, aside: dict[str, str]) -> None:
    assert [by_http(behind, "203.0.113.1", **aside) for _ in range(2)] == [200, 429]
    assert by_http(behind, "203.0.113.2", **aside) == 200
    # What a client wrote itself stands in front of what the proxy added.
    assert by_http(behind, "198.51.100.9, 203.0.113.1", **aside) == 429


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_and_by_grpc(behind: ServerProcess, *, stream: bool) -> None:
    assert [by_grpc(behind, "203.0.113.1", stream=stream) for _ in range(2)] == [LET_IN, REFUSED]
    assert by_grpc(behind, "203.0.113.2", stream=stream) is LET_IN
    assert '"address": "203.0.113.1"' in behind.log


def test_nobody_else_is_believed(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path, *FLAGS, "--trusted-proxies", "10.0.0.0/8") as server:
        assert [by_http(server, f"203.0.113.{number}") for number in (1, 2)] == [200, 429]
        assert by_grpc(server, "203.0.113.3", stream=False) is REFUSED
