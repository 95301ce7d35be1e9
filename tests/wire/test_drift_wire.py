"""Drift of two workers together, and no drift for a bundle of before."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format

from benchmarks.scrape import sample
from export.reference import build_reference
from server.psi import psi
from tests.wire.bundles import expected_probabilities, picture, write_bundle
from tests.wire.http_client import Http, form
from tests.wire.server_process import ServerProcess, run_server

pytestmark = pytest.mark.slow  # starts a server
WITHIN_S = 20
LEVELS = tuple(range(0, 256, 4))
NAMES = ("dark", "dim", "bright")


def add_reference(folder: Path) -> None:
    """What export would have written, had these levels been the hold-out."""
    pixels = np.stack([np.full((8, 8, 1), level, np.uint8) for level in LEVELS])
    answers = np.stack([expected_probabilities(level) for level in LEVELS])
    described = json.loads((folder / "manifest.json").read_text())
    described["reference"] = json_format.MessageToDict(build_reference(pixels, answers))
    (folder / "manifest.json").write_text(json.dumps(described))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    add_reference(write_bundle(models, "grey", 1))
    write_bundle(models, "old", 1)
    flags = ("--workers", "2", "--latency-budget-ms", "5000")
    with run_server(models, tmp_path_factory.mktemp("server"), *flags) as process:
        yield process


def metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as response:
        return str(response.read().decode())


def ask(server: ServerProcess, model: str) -> None:
    """40 bright pictures, on a connection of its own so that the workers take turns."""
    with Http(server.http_port) as http:
        body, kind = form(*(("file", "a.png", picture(250)) for _ in range(40)))
        assert http.predict(body, kind, f"/predict/{model}").status == 200


def counted(server: ServerProcess, rows: int) -> str:
    """Returns the metrics once so many rows of `grey` are counted: by other processes, and not all of a tick."""
    give_up_s = time.monotonic() + WITHIN_S
    while sample(text := metrics(server), "shoal_drift_rows", model="grey", feature="classes") < rows:
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
    return text


def test_the_index_is_of_all_workers_rows_together(workers: ServerProcess) -> None:
    for count in range(1, 7):
        ask(workers, "old")
        ask(workers, "grey")
        text = counted(workers, 40 * count)
    rows = [sample(text, "shoal_drift_rows", model="grey", feature="classes", bin=name) for name in NAMES]
    wanted = [sample(text, "shoal_drift_reference_rows", model="grey", feature="classes", bin=name) for name in NAMES]
    assert rows == [0, 0, 240]
    assert sum(wanted) == len(LEVELS)
    told = sample(text, "shoal_drift_psi", model="grey", version="1", feature="classes")
    assert told == pytest.approx(psi(wanted, rows))
    assert told > 0.25
    assert "shoal_drift_psi{" in text
    assert 'model="old"' not in "".join(line for line in text.splitlines() if line.startswith("shoal_drift"))
