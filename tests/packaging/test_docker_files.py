"""The Dockerfiles: hadolint finds nothing, every image ends without root, and what is copied is there to be copied."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "Dockerfile.serve", ROOT / "Dockerfile.train", ROOT / "deploy/proxy/Dockerfile"]
SCRIPTS = sorted(ROOT.glob("deploy/**/*.sh"))


def stages(file: Path) -> dict[str, list[str]]:
    """The instructions of each stage, in order; a stage without a name goes by its number."""
    found: dict[str, list[str]] = {}
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE)).splitlines()
    name = ""
    for line in lines:
        start = re.match(r"FROM (\S+)(?: AS (\S+))?$", line)
        if start:
            name = start[2] or str(len(found))
            found[name] = [line]
        elif name and line.strip():
            found[name].append(line.strip())
    return found


def whole(file: Path, name: str) -> list[str]:
    """The instructions of a stage and of those it is made from."""
    lines = stages(file)[name]
    base = lines[0].split()[1]
    return [*(whole(file, base) if base in stages(file) else []), *lines]


def final(file: Path) -> list[str]:
    """The stages that images are made of: no other stage copies from them, or begins with them by name alone."""
    named = stages(file)
    used = {match for lines in named.values() for match in re.findall(r"--from=(\S+)", "\n".join(lines))}
    based_on = {lines[0].split()[1] for lines in named.values() if len(lines) > 1}
    return [name for name in named if name not in used | based_on]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (make setup does it)")
    command = [hadolint, "--no-color", "--config", str(ROOT / ".hadolint.yaml"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_image_runs_as_the_same_user_who_is_not_root(file: Path) -> None:
    images = final(file)
    assert images
    for name in images:
        users = [line for line in whole(file, name) if line.startswith("USER ")]
        assert users[-1:] == ["USER 10001:10001"], f"{name}: {users}"


def test_an_image_can_be_built_for_each_kind_of_processor() -> None:
    assert {"cpu", "gpu"} <= set(stages(FILES[0]))
    assert {"cpu", "gpu", "jupyter"} <= set(stages(FILES[1]))
    for file in FILES[:2]:  # what `docker build` makes when it is told no target
        assert list(stages(file).values())[-1] == ["FROM cpu"]


@pytest.mark.parametrize("file", FILES[:2], ids=lambda file: file.name)
def test_packages_are_installed_by_hash_and_only_that_way(file: Path) -> None:
    text = file.read_text()
    assert "pip install" not in text
    assert "--require-hashes" in (ROOT / "deploy/docker/install-packages.sh").read_text()
    for name in re.findall(r"requirements/(\S+\.txt)", text):
        if "*" not in name:
            assert (ROOT / "requirements" / name).exists(), f"run make requirements: {name} is missing"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_what_is_copied_is_in_the_build(file: Path) -> None:
    context = file.parent if file.parent != ROOT else ROOT
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [
        line for lines in stages(file).values() for line in lines if line.startswith("COPY") and "--from" not in line
    ]
    assert copies
    for line in copies:
        sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
        for source in sources:
            assert (context / source).exists(), f"{line}: there is no {source}"
            if context == ROOT:
                let_in = any(Path(source).is_relative_to(one) or Path(source).match(one) for one in allowed)
                assert let_in or any(Path(one).is_relative_to(source) for one in allowed), (
                    f".dockerignore drops {source}"
                )


def test_the_context_holds_no_key_no_picture_and_no_run() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    for private in (".env", "deploy/secrets", "runs", "data", ".git"):
        assert f"!{private}" not in lines


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.relative_to(ROOT).as_posix())
def test_a_script_can_be_run_and_parsed(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    shell = "bash" if script.read_text().startswith("#!/bin/bash") else "sh"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path / "secrets"
    command = [str(ROOT / "deploy/secrets.sh"), "shoal.example.com", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    made = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert set(made) == {"serve/jwt.key", "postgres/password", "grafana/password", "proxy/tls.crt", "proxy/tls.key"}
    assert len(made["serve/jwt.key"].strip()) >= 32
    assert folder.stat().st_mode & 0o777 == 0o700
    shown = ["openssl", "x509", "-in", str(folder / "proxy/tls.crt"), "-noout", "-ext", "subjectAltName"]
    assert b"DNS:shoal.example.com" in subprocess.run(shown, check=True, capture_output=True).stdout
    subprocess.run(command, check=True, capture_output=True)
    assert {name: (folder / name).read_bytes() for name in made} == made
