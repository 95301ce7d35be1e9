"""The client package is tested from its source folder; tests/clients/test_client_package.py installs it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.server_process import Address, serve

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients" / "python" / "src"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def server() -> Iterator[Address]:
    """A server of the bundle that ships."""
    with serve(ROOT / "models", ("--latency-budget-ms", "5000", "--max-body-bytes", "1000000")) as address:
        yield address


@pytest.fixture(scope="session")
def digits() -> list[tuple[bytes, str]]:
    """Test pictures of the bundle that ships, as files, with the labels that its model answers."""
    with np.load(ROOT / "models" / "digits" / "1" / "golden.npz") as golden:
        files, ends = golden["encoded"].tobytes(), golden["offsets"].tolist()
        answers = golden["probabilities"].argmax(axis=1).tolist()
    return [(files[start:end], str(answer)) for start, end, answer in zip(ends[:-1], ends[1:], answers, strict=True)]


@pytest.fixture
def seven() -> bytes:
    return (ROOT / "docs" / "examples" / "seven.png").read_bytes()
