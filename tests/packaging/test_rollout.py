"""deploy/rollout.sh: what it sends to a cluster, and that it goes back when the release is not fit.

The cluster is a script that notes what it is told and renders what is applied; the server that is asked is real.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.server_process import Address, serve

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # a server, and a smoke test of it for each run


@pytest.fixture(scope="module")
def shipped() -> Iterator[Address]:
    with serve(ROOT / "models", ["--workers", "1"]) as address:
        yield address


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with a kubectl that writes `calls`, and `applied.yaml` where the real one can render."""
    real = shutil.which("kubectl")
    if real is None:
        pytest.skip("kubectl is not installed")
    (tmp_path / "deployment").touch()
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"""#!/bin/sh
echo "$*" >> {tmp_path}/calls
case "$*" in
  "apply -k "*) exec {real} kustomize "$3" > {tmp_path}/applied.yaml ;;
  *" get "*) cat {tmp_path}/deployment ;;
esac
""")
    kubectl.chmod(0o755)
    return tmp_path


def rollout(cluster: Path, url: str, smoke: str, overlay: str = "overlays/cpu") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{cluster}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "OVERLAY": overlay,
        "SMOKE_ARGS": f"--rate 40 --seconds 0.5 --wait-s 0 {smoke}",
    }
    command = [str(ROOT / "deploy/rollout.sh"), "registry.example.com/", "v1.2.3", url]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def images(cluster: Path) -> set[str]:
    applied = yaml.safe_load_all((cluster / "applied.yaml").read_text())
    pods = [one["spec"]["template"]["spec"] for one in applied if one["kind"] == "Deployment"]
    return {container["image"] for pod in pods for container in [*pod.get("initContainers", []), *pod["containers"]]}


def test_a_fit_release_stays(cluster: Path, shipped: Address) -> None:
    done = rollout(cluster, shipped.http, "--max-p99-ms 10000", overlay="overlays/cpu-pull")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "v1.2.3 serves" in done.stdout
    assert images(cluster) == {"registry.example.com/shoal-serve:v1.2.3", "registry.example.com/shoal-train:v1.2.3"}
    assert "undo" not in (cluster / "calls").read_text()
    assert not list((ROOT / "deploy/kubernetes").glob("release.*"))


def test_an_unfit_release_is_taken_back(cluster: Path, shipped: Address) -> None:
    (cluster / "deployment").write_text("deployment.apps/shoal-serve\n")
    done = rollout(cluster, shipped.http, "--max-p99-ms 0.001", overlay="overlays/gpu")
    assert done.returncode == 1
    assert images(cluster) == {"registry.example.com/shoal-serve:v1.2.3-gpu"}
    assert "v1.2.3 is not fit" in done.stderr
    calls = (cluster / "calls").read_text().splitlines()
    assert calls[-2:] == [
        "-n shoal rollout undo deployment/shoal-serve",
        "-n shoal rollout status deployment/shoal-serve --timeout=10m",
    ]


def test_a_first_release_that_is_unfit_has_nothing_to_go_back_to(cluster: Path, shipped: Address) -> None:
    done = rollout(cluster, shipped.http, "--max-p99-ms 0.001")
    assert done.returncode == 1
    assert "nothing before it to go back to" in done.stderr
    assert "undo" not in (cluster / "calls").read_text()
