"""The package as it is installed: a wheel, in an environment of its own, with no source folder in sight."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.server_process import Address

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(root / "clients" / "python", source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    done = run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with the wheel, which borrows what the wheel depends on from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder).returncode == 0
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    done = run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    yield folder
    shutil.rmtree(folder)


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read("shoal_client-0.1.0.dist-info/METADATA").decode()
    assert all(name.startswith("shoal_client/") for name in names)
    needed = {"py.typed", "_proto/classifier.binpb", "_proto/classifier_pb2.py", "_proto/classifier_pb2.pyi"}
    assert {f"shoal_client/{name}" for name in needed} <= names
    required = {line.split()[1].partition(">")[0] for line in metadata.splitlines() if "Requires-Dist" in line}
    assert required == {"grpcio", "httpx", "protobuf"}


def test_the_command_works_when_installed(environment: Path, root: Path, server: Address) -> None:
    command = environment / "bin" / "shoal-classify"
    helped = run(command, "--help", cwd=environment)
    assert helped.returncode == 0, helped.stderr
    assert "examples:" in helped.stdout
    picture = root / "docs" / "examples" / "seven.png"
    for address in (f"grpc://{server.grpc}", server.http):
        done = run(command, picture, "--server", address, cwd=environment)
        assert done.returncode == 0, done.stderr
        assert f"{picture},1,7,7," in done.stdout


def test_it_needs_no_code_of_the_servers(environment: Path) -> None:
    program = "import sys, shoal_client; print(shoal_client.__file__, 'protos' in sys.modules, 'server' in sys.modules)"
    done = run(environment / "bin" / "python", "-c", program, cwd=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(environment))
    assert done.stdout.endswith("False False\n")
