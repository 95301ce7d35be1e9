"""Runs every example of docs/tfserving.md as a reader would, and holds its tables to what there is."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos import tensorflow_pb2 as tf
from protos import tensorflow_serving_pb2 as pb
from server.transports.codecs.tfserving_tensors import FORMS, MAX_FILLED_BYTES
from server.transports.tfserving_http import TFSERVING_ROUTES
from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import ROOT, ServerProcess, run_server
from tests.wire.v2_clients import PYTHON, has_kserve

pytestmark = pytest.mark.slow  # starts from a server process
PAGE = (ROOT / "docs" / "tfserving.md").read_text()
EXAMPLES = re.findall(r"^```(sh|python (?:tensorflow|kserve))\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "pets", 1)
    with run_server(models, tmp_path_factory.mktemp("server"), "--latency-budget-ms", "5000") as process:
        yield process


def interpreter_of(language: str) -> list[str]:
    """How to run an example; skips where what it needs is not installed."""
    if language == "sh":
        return ["sh", "-ec"]
    if language.endswith("tensorflow"):
        if not all(map(importlib.util.find_spec, ("tensorflow", "tensorflow_serving"))):
            pytest.skip("tensorflow and tensorflow-serving-api are not installed")
        return [sys.executable, "-c"]
    if not has_kserve():
        pytest.skip(f"kserve is not in the clients' environment: {PYTHON}")
    return [str(PYTHON), "-c"]


@pytest.mark.parametrize(("language", "text"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(pets: ServerProcess, tmp_path: Path, language: str, text: str) -> None:
    (tmp_path / "picture.png").write_bytes(picture(250))
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{pets.http_port}").replace("127.0.0.1:8001", pets.grpc_address)
    command = [*interpreter_of(language), text]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"\[2\] is bright|0\.99\d+|AVAILABLE", ended.stdout), ended.stdout


def test_the_page_names_every_method_and_route() -> None:
    assert {language for language, _ in EXAMPLES} == {"sh", "python tensorflow", "python kserve"}
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert f"`{method.name}`" in PAGE
    for route in TFSERVING_ROUTES:
        path = route.path.replace("/versions/{version}", "").replace("/labels/{label}", "")
        assert f"`{route.method} {path}`" in PAGE, route


def test_the_page_names_every_type_and_the_limit() -> None:
    for form in FORMS:
        assert tf.DataType.Name(form.number) in PAGE
    assert f"at most {MAX_FILLED_BYTES >> 20} MiB" in PAGE
