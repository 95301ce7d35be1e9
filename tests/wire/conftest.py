from collections.abc import Iterator

import pytest

from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that leave it as it was: models `grey` (8×8×1, the default) and `rgb` (32×32×3).

    `grey` has a class-activation map, `rgb` has none.
    """
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1, explained=True)
    write_bundle(models, "rgb", 1, height=32, width=32, channels=3)
    limits = ("--max-body-bytes", "200000", "--max-image-pixels", "1000000", "--latency-budget-ms", "5000")
    with run_server(models, tmp_path_factory.mktemp("server"), *limits) as process:
        yield process


@pytest.fixture
def http(server: ServerProcess) -> Iterator[Http]:
    with Http(server.http_port) as client:
        yield client


@pytest.fixture
def classifier(server: ServerProcess) -> Iterator[pb_grpc.ClassifierStub]:
    with server.channel() as channel:
        yield pb_grpc.ClassifierStub(channel)
