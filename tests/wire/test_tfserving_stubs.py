"""Unmodified tensorflow-serving-api stubs and TensorFlow against the real server, each in a process of its own.

They need the whole of TensorFlow, so they run in this environment and not in the other clients'.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import ROOT, run_server
from tests.wire.v2_clients import ClientProcess, checks_of, run_clients
from tests.wire.v2_models import write_models

pytestmark = pytest.mark.slow  # starts from a server process
CHECKS = checks_of("tfserving_checks")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    if not all(map(importlib.util.find_spec, ("tensorflow", "tensorflow_serving"))):
        pytest.skip("tensorflow and tensorflow-serving-api are not installed")
    models, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("clients")
    write_bundle(models, "grey", 1)
    write_models(models)
    (folder / "picture.png").write_bytes(picture(250))
    arguments = (str(folder / "picture.png"),)
    with (
        run_server(models, folder, "--latency-budget-ms", "5000") as server,
        run_clients(
            "tfserving_checks", server.grpc_address, *arguments, python=Path(sys.executable), path=ROOT
        ) as process,
    ):
        yield process
        assert "Traceback" not in server.log


@pytest.mark.parametrize("check", CHECKS)
def test_tensorflow_serving_api(clients: ClientProcess, check: str) -> None:
    clients.run(check)


def test_there_are_checks() -> None:
    assert len(CHECKS) >= 12


def test_the_protocol_has_the_published_numbers(clients: ClientProcess) -> None:
    published, ours = clients.run("numbers")
    assert len(ours) > 100
    assert {name: (number, published.get(name)) for name, number in ours.items() if published.get(name) != number} == {}
