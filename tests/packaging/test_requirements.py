"""requirements/*.txt are what pyproject.toml asks for, with hashes, and name no place to download from."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
KEPT = ("predictions", "postgres")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted(*, extras: tuple[str, ...], groups: tuple[str, ...] = ()) -> list[Requirement]:
    lines = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        lines += PROJECT["project"]["optional-dependencies"][extra]
    for group in groups:
        lines += members(group)
    return [Requirement(line) for line in lines]


def members(group: str) -> list[str]:
    lines: list[str] = []
    for line in PROJECT["dependency-groups"][group]:
        lines += [line] if isinstance(line, str) else members(line["include-group"])
    return lines


def pinned(file: Path) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", file.read_text(), re.MULTILINE)
    return dict(reversed(found))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_line_has_a_hash_and_names_no_address(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    assert not re.search(r"^--(?!hash)", text, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize(
    ("name", "extras", "groups"),
    [
        ("all", ("cpu", "openvino"), ("training", "dev")),
        ("serve", ("cpu", *KEPT), ()),
        ("serve-gpu", ("gpu", *KEPT), ()),
        ("serve-openvino", ("openvino", *KEPT), ()),
        ("train", ("cpu",), ("training",)),
    ],
)
def test_pins_satisfy_pyproject(name: str, extras: tuple[str, ...], groups: tuple[str, ...]) -> None:
    pins = pinned(ROOT / "requirements" / f"{name}.txt")
    for requirement in wanted(extras=extras, groups=groups):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"run make requirements: {requirement.name} is not in {name}.txt"
        assert requirement.specifier.contains(pin, prereleases=True)


@pytest.mark.parametrize("name", ["serve", "train"])
def test_each_environment_has_the_versions_of_the_whole(name: str) -> None:
    everything, part = pinned(ROOT / "requirements" / "all.txt"), pinned(ROOT / "requirements" / f"{name}.txt")
    assert part.items() <= everything.items()


def test_serving_installs_no_training_library() -> None:
    assert (
        not {"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "scipy"}
        & pinned(ROOT / "requirements" / "serve.txt").keys()
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_environment_holds_two_builds_of_onnxruntime(file: Path) -> None:
    builds = {name for name in pinned(file) if name.startswith("onnxruntime")}
    assert len(builds - {"onnxruntime-ep-openvino"}) <= 1  # a plug-in stands beside a build
