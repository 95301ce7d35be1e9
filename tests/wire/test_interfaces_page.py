"""Runs every example of docs/interfaces.md as a reader would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.transports.http_explain import EXPLAIN_ROUTES
from server.transports.http_feedback import FEEDBACK_ROUTES
from server.transports.http_routes import ROUTES
from server.transports.status import TABLE
from tests.wire.bundles import picture
from tests.wire.server_process import ROOT, ServerProcess

pytestmark = pytest.mark.slow  # starts from a server process
PAGE = (ROOT / "docs" / "interfaces.md").read_text()
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("language", "text"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(server: ServerProcess, tmp_path: Path, language: str, text: str) -> None:
    (tmp_path / "picture.png").write_bytes(picture(250))
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.http_port}")
    text = text.replace("127.0.0.1:8001", server.grpc_address)
    command = ["sh", "-ec", text] if language == "sh" else [sys.executable, "-c", text]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"bright|dim|dark|100 answers", ended.stdout), ended.stdout


def test_the_page_has_examples_of_both_interfaces() -> None:
    assert len(EXAMPLES) >= 6
    assert {language for language, _ in EXAMPLES} == {"sh", "python"}


def test_the_page_names_every_route_and_error() -> None:
    for route in (*ROUTES, *EXPLAIN_ROUTES, *FEEDBACK_ROUTES):
        assert f"{route.method} {route.path}" in PAGE
    told = {"cancelled", "unavailable"}  # nothing raises these to callers yet
    for status in TABLE.values():
        assert status.kind in PAGE or status.kind in told
