"""The faster gRPC host is held to grpcio's own tests, and to what is its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import classifier_pb2_grpc as pb_grpc
from server.errors import StartupError
from server.transports.grpc_host import choose_host
from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import ServerProcess, run_server, run_to_end
from tests.wire.test_plain_grpc import *  # noqa: F403  the same tests, on the server below
from tests.wire.test_plain_grpc import LIMIT_S, encoded

native = pytest.importorskip("pygrpc_native", reason="the native gRPC host is not installed")

pytestmark = pytest.mark.slow  # each starts from a server process
SLOW = 400  # of `write_bundle`: 5 to 50 ms a picture
QUEUED = 80  # so that they take longer than the refused call may


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    write_bundle(models, "rgb", 1, height=32, width=32, channels=3)
    limits = ("--max-body-bytes", "200000", "--max-image-pixels", "1000000", "--latency-budget-ms", "5000")
    with run_server(models, tmp_path_factory.mktemp("server"), *limits, "--grpc-host", "native") as process:
        yield process


def test_a_refusal_ends_its_call_at_once(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models, "slow", 1, work=SLOW)
    flags = ("--max-batch-rows", "1", "--latency-budget-ms", "20000", "--grpc-host", "native")
    with run_server(models, tmp_path / "run", *flags) as server, server.channel() as channel:
        classify = pb_grpc.ClassifierStub(channel).Classify
        classify(encoded(picture(250)), timeout=LIMIT_S)
        queue = [classify.future(encoded(picture(250)), timeout=LIMIT_S) for _ in range(QUEUED)]
        refused = classify_until_refused(classify, lambda: all(call.done() for call in queue))
        assert refused == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [len(call.result().predictions) for call in queue] == [1] * QUEUED


def classify_until_refused(classify: Any, is_over: Callable[[], bool]) -> grpc.StatusCode | None:
    while not is_over():
        try:
            classify(encoded(picture(250)), timeout=0.1)
        except grpc.RpcError as error:
            return error.code()
    return None


def test_gzip_is_understood(server: ServerProcess) -> None:
    with server.channel() as channel:
        classify = pb_grpc.ClassifierStub(channel).Classify
        answer = classify(encoded(picture(250)), timeout=LIMIT_S, compression=grpc.Compression.Gzip)
    assert len(answer.predictions) == 1


def test_it_serves_by_itself_where_it_can_and_says_where_it_cannot() -> None:
    assert choose_host("auto", secure=False) == "native"
    assert choose_host("auto", secure=True) == "grpcio"
    assert choose_host("grpcio", secure=False) == "grpcio"
    with pytest.raises(StartupError, match="it has no TLS yet"):
        choose_host("native", secure=True)


def test_without_it_auto_is_grpcio_and_asking_for_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.transports.grpc_host.NATIVE", "pygrpc_native_that_is_not_there")
    assert choose_host("auto", secure=False) == "grpcio"
    with pytest.raises(StartupError, match=r"not installed: pip install shoal\[native\]"):
        choose_host("native", secure=False)


def test_a_host_that_nobody_knows_is_refused() -> None:
    ended = run_to_end("--grpc-host", "rust")
    assert ended.returncode == 2
    assert "grpcio" in ended.stderr
