"""The commands and programs of docs/security.md, word for word but for ports and folders."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from server.settings import Settings
from tests.wire.bundles import picture, write_bundle
from tests.wire.server_process import ROOT, ServerProcess, run_server

pytestmark = pytest.mark.slow  # starts servers

TEXT = (ROOT / "docs" / "security.md").read_text()
SECTIONS = re.split(r"^### ", TEXT.split("## Who may do what")[0], flags=re.MULTILINE)[1:]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SERVER = re.compile(r"^python -m server --models models (.*)$", re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "grey", 1)
    (tmp_path / "picture.png").write_bytes(picture(200))
    return tmp_path


def run(code: str, language: str, folder: Path, server: ServerProcess | None) -> str:
    if server is not None:
        code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.http_port}")
        code = code.replace("127.0.0.1:8001", server.grpc_address)
    command = ["sh", "-euc", code] if language == "sh" else [sys.executable, "-c", code]
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": tools, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    return done.stdout


def given(flags: str, folder: Path) -> list[str]:
    """A server's flags, with its files where they are."""
    return [str(folder / flag) if (folder / flag).is_file() else flag for flag in shlex.split(flags)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_each_example_does_what_it_says(section: str, folder: Path) -> None:
    with ExitStack() as stack:
        server = None
        for language, code in BLOCK.findall(section):
            if language == "yaml":
                told = yaml.safe_load(code)
                assert Settings(**told).model_dump().keys() >= told.keys()
                continue
            started, rest = SERVER.search(code), SERVER.sub("", code)
            out = run(rest, language, folder, server) if rest.strip() else ""
            assert "/predict" not in rest or '"labels":["bright"]' in out
            if started:
                server = stack.enter_context(run_server(folder / "models", folder / "run", *given(started[1], folder)))
