"""Every command and every program in README.md, word for word but for ports and folders."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.server_process import Address

Make = Callable[..., subprocess.CompletedProcess[str]]

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
CURL = [command for command in COMMANDS if command.startswith("curl ")]
# Run by tests/e2e/test_fresh_clone.py, by this very run, and below.
MAKE = {
    "make serve",
    "make test",
    "make bench",
    "make validate DATA=data/pets",
    "make train export DATA=data/pets NAME=pets",
}


def at(address: Address, text: str) -> str:
    return text.replace("http://127.0.0.1:8000", address.http).replace("127.0.0.1:8001", address.grpc)


def test_every_command_has_its_test() -> None:
    assert set(COMMANDS) - set(CURL) == MAKE
    assert len(CURL) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("command", CURL)
def test_curl(shipped: Address, command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", at(shipped, command).replace("curl", "curl -sS --fail-with-body", 1)],
        cwd=README.parent, check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("{")
    if "/predict" in command:
        assert '"labels":["7"]' in done.stdout.replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize("program", [text for kind, text in BLOCKS if kind == "python"])
def test_python(shipped: Address, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(README.parent)
    done = subprocess.run(
        [sys.executable, "-c", at(shipped, program)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "7"
    assert float(done.stdout.split()[1]) > 0.5


def draw(folder: Path, classes: dict[str, int]) -> None:
    """Pictures whose class shows in their brightness."""
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for name, brightness in classes.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(brightness, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


@pytest.mark.slow
def test_your_own_images_become_a_version(run_make: Make, tmp_path: Path) -> None:
    draw(tmp_path / "pets", {"cat": 60, "dog": 190})
    done = run_make("validate", f"DATA={tmp_path / 'pets'}", f"ARGS=--out {tmp_path / 'looked-over'}")
    assert done.returncode == 0, done.stderr
    assert "100 pictures" in done.stdout
    folders = [f"RUNS={tmp_path / 'runs'}", f"MODELS={tmp_path / 'models'}"]
    command = "make train export DATA=data/pets NAME=pets".replace("data/pets", str(tmp_path / "pets")).split()[1:]
    done = run_make(*command, *folders, "EPOCHS=2")
    assert done.returncode in {0, 2}, done.stderr
    # Two epochs may leave a model that int8 gates refuse; float32 is written either way.
    assert (tmp_path / "models" / "pets" / "1" / "model.onnx").exists(), done.stdout + done.stderr
    done = run_make("evaluate", "NAME=pets", *folders)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
