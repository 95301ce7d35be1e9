"""What a newcomer does, in a copy of the tracked files with no environment of ours."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_BYTES = 340e6
READY_WITHIN_S = 240  # a cold package cache included


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "shoal"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def made(clone: Path) -> Iterator[dict[str, int]]:
    """`make serve`, on free ports."""
    ports_file, log_file = clone / "ports.json", clone / "serve.log"
    arguments = ["make", "serve", "HTTP_PORT=0", "GRPC_PORT=0", f"ARGS=--ports-file {ports_file}"]
    environment = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "MAKEFLAGS"}}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            arguments, cwd=clone, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    end_s = time.monotonic() + READY_WITHIN_S
    while not ports_file.exists() and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.1)  # a process of its own starts: there is nothing to wait on but its file
    assert ports_file.exists(), log_file.read_text()
    yield json.loads(ports_file.read_text())
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


@pytest.mark.slow
def test_make_serve_answers(clone: Path, made: dict[str, int]) -> None:
    picture = (clone / "docs" / "examples" / "seven.png").read_bytes()
    request = urllib.request.Request(f"http://127.0.0.1:{made['http']}/predict", picture, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["labels"] == ["7"]


@pytest.mark.slow
def test_it_says_what_to_open_and_what_to_paste(clone: Path, made: dict[str, int]) -> None:
    said = (clone / "serve.log").read_text()
    assert f"http://127.0.0.1:{made['http']}/" in said
    assert "curl " in said


@pytest.mark.slow
@pytest.mark.usefixtures("made")
def test_the_serving_environment_is_small_and_has_no_tensorflow(clone: Path) -> None:
    files = [file for file in (clone / ".venv").rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES
    assert not [file for file in files if "tensorflow" in file.parts]
