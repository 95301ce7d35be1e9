"""Every program and command of clients/python/README.md, word for word but for addresses and output folders."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.server_process import Address

README = Path(__file__).resolve().parents[2] / "clients" / "python" / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("shoal-classify")
]


def fit(text: str, server: Address, tmp_path: Path) -> str:
    placed = text.replace("127.0.0.1:8001", server.grpc).replace("http://127.0.0.1:8000", server.http)
    return placed.replace("build/", f"{tmp_path}/")


def run(command: list[str], root: Path, server: Address) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(root / "clients" / "python" / "src"),
        "SHOAL_SERVER": f"grpc://{server.grpc}",
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(command, cwd=root, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples() -> None:
    assert len(PROGRAMS) == 4
    assert len(COMMANDS) == 5


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs(number: int, server: Address, root: Path, tmp_path: Path) -> None:
    printed = run([sys.executable, "-c", fit(PROGRAMS[number], server, tmp_path)], root, server)
    assert "7" in printed.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_commands(number: int, server: Address, root: Path, tmp_path: Path) -> None:
    words = fit(COMMANDS[number], server, tmp_path).split()[1:]
    printed = run([sys.executable, "-m", "shoal_client", *words], root, server)
    written = printed + "".join(file.read_text() for file in tmp_path.iterdir())
    assert "seven.png" in written or "usage: shoal-classify" in written
