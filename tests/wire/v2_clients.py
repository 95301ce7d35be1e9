"""Runs checks written for other people's clients, in a process of their own.

Their packages bring their own copy of the protocol's messages, and two copies cannot be in one process; they also hold
protobuf to another version than the server's. So they have an environment of their own, `.venv-clients` or wherever
SHOAL_CLIENTS_PYTHON is; a check is a function `check_…` of a module that only that environment can import.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("SHOAL_CLIENTS_PYTHON", HERE.parents[1] / ".venv-clients" / "bin" / "python"))


def checks_of(module: str) -> list[str]:
    """The names of a module's checks, found without importing it."""
    return re.findall(r"^def (check_\w+)", (HERE / f"{module}.py").read_text(), re.MULTILINE)


def has_kserve() -> bool:
    """Whether the clients' environment is there and has kserve."""
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('kserve') is None)"
    return PYTHON.exists() and not subprocess.run([PYTHON, "-c", find], check=False).returncode


class ClientProcess:
    """A process that has imported one module of checks and runs them by name."""

    def __init__(self, module: str, *addresses: str, python: Path = PYTHON, path: Path | None = None) -> None:
        command = [str(python), str(HERE / "v2_check_runner.py"), module, *addresses]
        environment = os.environ | ({} if path is None else {"PYTHONPATH": str(path)})
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE, text=True, env=environment
        )

    def run(self, check: str) -> Any:
        """Runs a check and gives what it returns; fails where it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(check + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the clients' process ended with {self._process.wait(10)}"
        answer = json.loads(line)
        assert "failure" not in answer, answer["failure"]
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


@contextmanager
def run_clients(
    module: str, *addresses: str, python: Path = PYTHON, path: Path | None = None
) -> Iterator[ClientProcess]:
    """A process with a module of checks, for as long as the context lasts; skips where its packages are not there.

    `python` runs it where that is not the clients' environment, and `path` is where it may import from besides.
    """
    if not python.exists():
        pytest.skip(f"the clients' environment is not there: {python}")
    process = ClientProcess(module, *addresses, python=python, path=path)
    try:
        yield process
    finally:
        process.close()
