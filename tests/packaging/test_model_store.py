"""deploy/model-store.sh: what it backs up comes back, whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # each bundle is a process of `python -m export`


def model_store(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "deploy/model-store.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A store of one bundle, a policy, and a bundle that is being written."""
    shutil.copytree(ROOT / "models/digits", tmp_path / "models/digits")
    (tmp_path / "models/digits/policy.json").write_text(json.dumps({"default": 1}))
    half = tmp_path / "models/digits/.partial-2"
    half.mkdir()
    (half / "manifest.json").write_text("{}")
    return tmp_path / "models"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_was_backed_up_comes_back_to_the_byte(models: Path, tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    for _ in range(2):  # a second time there is nothing to do, and no error
        done = model_store("backup", str(backup), str(models))
        assert done.returncode == 0, done.stderr
    done = model_store("restore", str(backup), str(restored))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(models / "digits/.partial-2")
    kept = {name: data for name, data in contents(restored).items() if not Path(name).name.startswith(".")}
    assert kept == contents(models)


def test_a_drill_tells_a_damaged_backup_from_a_sound_one(models: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert model_store("backup", str(backup), str(models)).returncode == 0
    sound = model_store("drill", str(backup))
    assert (sound.returncode, "came back" in sound.stdout) == (0, True), sound.stderr
    graph = backup / "digits/1/model.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    damaged = model_store("drill", str(backup))
    assert damaged.returncode != 0
    assert "model.int8.onnx" in damaged.stderr


def test_a_wrong_command_says_what_there_is() -> None:
    done = model_store("remove", "backup")
    assert done.returncode == 2
    assert "backup  FOLDER" in done.stderr
