"""The export commands beside a running server: what they write is what every worker does."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import signing
from export.__main__ import main
from tests.unit.server.bundle_factory import write_bundle
from tests.wire.server_process import ServerProcess, run_server, run_to_end

pytestmark = pytest.mark.slow

WITHIN_S = 60
CONNECTIONS = 12  # every one is new, so the supervisor hands them to its workers in turn


def get(server: ServerProcess, path: str, *, method: str = "GET") -> Any:
    request = urllib.request.Request(f"{server.url}{path}", method=method)
    with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
        return response.read().decode()


def answering(server: ServerProcess) -> set[int]:
    """The versions that answer over many connections."""
    return {int(json.loads(get(server, "/model-info?model=pets"))["version"]) for _ in range(CONNECTIONS)}


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, "it did not come true in time"
        time.sleep(0.05)


def test_promote_and_rollback_reach_every_worker(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version in (1, 2):
        write_bundle(models, "pets", version)
    flags = ["--models", str(models)]
    with run_server(models, tmp_path / "server", "--workers", "2") as server:
        assert answering(server) == {2}  # the latest, as nobody has said otherwise
        assert main(["rollback", "pets", *flags]) == 0
        wait_until(lambda: answering(server) == {1})
        assert main(["promote", "pets", "2", *flags]) == 0
        wait_until(lambda: answering(server) == {2})
        assert main(["rollback", "pets", *flags]) == 0
        wait_until(lambda: answering(server) == {1})
        assert "policy_refused" not in server.log


def test_gc_beside_a_server_takes_away_only_what_it_does_not_need(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version in (1, 2, 3):
        write_bundle(models, "pets", version)
    with run_server(models, tmp_path / "server") as server:
        assert main(["gc", "pets", "--keep", "1", "--models", str(models)]) == 0
        wait_until(lambda: len(index(server)) == 2)
        assert answering(server) == {3}
        assert "failed" not in server.log


def index(server: ServerProcess) -> dict[str, tuple[str, str]]:
    states = json.loads(get(server, "/v2/repository/index", method="POST"))
    return {entry["version"]: (entry["state"], entry.get("reason", "")) for entry in states}


def test_a_server_that_asks_for_signatures_says_whom_it_refused_and_why(tmp_path: Path) -> None:
    models, key = tmp_path / "models", tmp_path / "release.key"
    trusted = str(signing.generate_keys(key))
    signing.sign(write_bundle(models, "pets", 1), signing.read_private_key(key))
    with run_server(models, tmp_path / "server", "--trusted-keys", trusted) as server:
        write_bundle(models, "pets", 2)
        wait_until(lambda: index(server).get("2", ("", ""))[1] != "")
        assert "expected a signed bundle" in index(server)["2"][1]
        assert answering(server) == {1}
        assert "expected a signed bundle" in server.log
        assert 'event="failed",model="pets"' in get(server, "/metrics").replace(" ", "") or (
            'model="pets",event="failed"' in get(server, "/metrics")
        )
        assert main(["sign", "pets", "--key", str(key), "--models", str(models)]) == 0
        wait_until(lambda: answering(server) == {2})


def test_a_server_does_not_start_with_keys_that_are_none(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "pets", 1)
    done = run_to_end("--models", str(tmp_path / "models"), "--trusted-keys", str(tmp_path / "no.pub"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: --trusted-keys: expected a public key or a folder of them at")
