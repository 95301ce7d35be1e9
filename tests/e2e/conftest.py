import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.server_process import Address, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shipped() -> Iterator[Address]:
    """A server on the bundle that ships."""
    with serve(ROOT / "models") as address:
        yield address


@pytest.fixture(scope="session")
def run_make() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs make with this environment's Python, so that nothing is installed again."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # What was said to the make that runs the tests is not for these.
        environment = {name: value for name, value in os.environ.items() if name not in {"ARGS", "MAKEFLAGS", "MFLAGS"}}
        venv = f"VENV={Path(sys.prefix)}"
        return subprocess.run(
            ["make", venv, *arguments],
            cwd=ROOT,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=280,
        )

    return run
