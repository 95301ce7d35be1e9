"""Unmodified tritonclient against the real server, each in a process of its own."""

from collections.abc import Iterator

import pytest

from protos import inference_pb2
from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import run_server
from tests.wire.v2_clients import ClientProcess, checks_of, run_clients
from tests.wire.v2_models import write_models
from tests.wire.v2_numbers import numbers_of

pytestmark = pytest.mark.slow  # starts from a server process
SLOW = 500  # a batch of this much work takes some ten milliseconds
CHECKS = checks_of("tritonclient_checks")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    models, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("clients")
    write_bundle(models, "grey", 1)
    write_bundle(models, "slow", 1, work=SLOW)
    write_models(models)
    (folder / "picture.png").write_bytes(picture(250))
    with (
        run_server(models, folder, "--latency-budget-ms", "5000") as server,
        run_clients(
            "tritonclient_checks",
            server.grpc_address,
            f"127.0.0.1:{server.http_port}",
            str(folder / "picture.png"),
        ) as process,
    ):
        yield process
        assert "Traceback" not in server.log


@pytest.mark.parametrize("check", CHECKS)
def test_tritonclient(clients: ClientProcess, check: str) -> None:
    clients.run(check)


def test_there_are_checks() -> None:
    assert len(CHECKS) > 20


def test_the_protocol_has_the_published_numbers(clients: ClientProcess) -> None:
    published, ours = clients.run("published_numbers"), numbers_of(inference_pb2)
    assert len(ours) > 200
    assert {name: (number, published.get(name)) for name, number in ours.items() if published.get(name) != number} == {}
