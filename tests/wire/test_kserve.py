"""kserve's unmodified inference clients against the real server, each in a process of its own."""

from collections.abc import Iterator

import pytest

from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import run_server
from tests.wire.v2_clients import PYTHON, ClientProcess, checks_of, has_kserve, run_clients
from tests.wire.v2_models import write_models

pytestmark = pytest.mark.slow  # starts from a server process
SLOW = 500  # a batch of this much work takes some ten milliseconds
CHECKS = checks_of("kserve_checks")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    if not has_kserve():
        pytest.skip(f"kserve is not in the clients' environment: {PYTHON}")
    models, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("clients")
    write_bundle(models, "grey", 1)
    write_bundle(models, "slow", 1, work=SLOW)
    write_models(models)
    (folder / "picture.png").write_bytes(picture(250))
    flags = ("--latency-budget-ms", "5000")
    with (
        run_server(models, folder, *flags) as server,
        run_clients("kserve_checks", server.grpc_address, server.url, str(folder / "picture.png")) as process,
    ):
        yield process
        assert "Traceback" not in server.log


@pytest.mark.parametrize("check", CHECKS)
def test_kserve(clients: ClientProcess, check: str) -> None:
    clients.run(check)


def test_there_are_checks() -> None:
    assert len(CHECKS) >= 9
