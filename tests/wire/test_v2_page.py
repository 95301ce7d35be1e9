"""Runs every example of docs/v2.md as a reader would, and holds its tables to what there is."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos import inference_pb2 as pb
from server.transports.codecs.v2 import DEFAULT_PRIORITY, PRIORITY_LEVELS
from server.transports.v2_http import V2_ROUTES
from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import ROOT, ServerProcess, run_server
from tests.wire.v2_clients import PYTHON

pytestmark = pytest.mark.slow  # starts from a server process
PAGE = (ROOT / "docs" / "v2.md").read_text()
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "pets", 1)
    with run_server(models, tmp_path_factory.mktemp("server"), "--latency-budget-ms", "5000") as process:
        yield process


@pytest.mark.parametrize(("language", "text"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(pets: ServerProcess, tmp_path: Path, language: str, text: str) -> None:
    if language == "python" and not PYTHON.exists():
        pytest.skip(f"the clients' environment is not there: {PYTHON}")
    (tmp_path / "picture.png").write_bytes(picture(250))
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{pets.http_port}").replace("127.0.0.1:8001", pets.grpc_address)
    command = ["sh", "-ec", text] if language == "sh" else [str(PYTHON), "-c", text]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r'bright|"data":\[[0-9.e-]+,[0-9.e-]+,0.99', ended.stdout), ended.stdout


def test_the_page_names_every_method_and_route() -> None:
    assert len(EXAMPLES) >= 4
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert f"`{method.name}`" in PAGE
    for route in V2_ROUTES:
        path = route.path.replace("/versions/{version}", "").replace("/region/{region}", "")
        if path.endswith("/unload"):
            path = "…/unload"
        assert re.search(rf"(POST |GET |`){re.escape(path)}`", PAGE), route


def test_the_page_tells_the_levels_of_priority() -> None:
    assert (
        f"1 goes first and {PRIORITY_LEVELS} last; none, 0 and more than {PRIORITY_LEVELS} mean {DEFAULT_PRIORITY}"
        in PAGE
    )
