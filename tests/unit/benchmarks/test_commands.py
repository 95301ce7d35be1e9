"""Every measurement of `python -m benchmarks full` runs, is kept, and is not repeated; its flags exist."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from benchmarks.full import STEPS, Step, chosen
from benchmarks.render_tables import TABLES

ROOT = Path(__file__).resolve().parents[3]
LIVE = ("half-load", "poisson", "footprint", "growth")


def benchmarks(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
@pytest.mark.parametrize("which", ["flags", "quick"])
def test_the_flags_of_a_step_are_the_commands_own(step: Step, which: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    COMMANDS[step.command][0].add_arguments(parser)
    needed = ["--photos", "x"] if step.photos else ["--models", "x"]
    _, unknown = parser.parse_known_args([*shlex.split(getattr(step, which)), *needed, "--out", "x.json"])
    assert unknown == []


def test_every_step_has_its_table_in_the_document() -> None:
    document = (ROOT / "docs" / "performance.md").read_text()
    for step in STEPS:
        assert step.name in TABLES
        assert f"<!-- results: {step.name} -->" in document


def test_photographs_are_left_out_where_there_are_none() -> None:
    assert "photos" not in {step.name for step in chosen("", photos=False)}
    assert "photos" in {step.name for step in chosen("", photos=True)}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["full", "--only", "limit,sprint"], "--only: expected some of limit, peak"),
        (["full", "--accept", "--folder", "nowhere"], "expected results in nowhere, found none"),
        (["growth", "--parts", "hair"], "--parts: expected some of connections"),
        (["gate", "--accepted", "nowhere.json"], "expected an accepted result in nowhere.json"),
        (["photos", "--photos", "nowhere"], "expected JPEG files (*.jpg) in --photos nowhere"),
        (["locust", "--protocols", "post"], "--protocols: expected some of http, grpc, mixed"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words: list[str], reason: str) -> None:
    done = benchmarks(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr


def test_help_teaches_by_examples() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for name, (module, text) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=text))
    assert all(f"  python -m benchmarks {name}" in benchmarks(name, "--help").stdout for name in ("poisson", "stops"))
    assert all(name in parser.format_help() for name in COMMANDS)


@pytest.mark.slow
def test_every_live_measurement_runs_and_is_kept(tmp_path: Path) -> None:
    words = ["full", "--quick", "--models", "models", "--folder", str(tmp_path), "--only", ",".join(LIVE)]
    done = benchmarks(*words)
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # 1: a bound was missed, as may be in half a second
    results = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in LIVE}
    for name, result in results.items():
        assert result["machine"]["cores"] >= 1
        assert result["command"].startswith("python -m benchmarks ")
        assert TABLES[name][1](result)
    assert results["half-load"]["figures"]["half load: not answered rightly"]["value"] == 0
    assert set(results["growth"]["models"]) == {"1", "2"}
    assert results["footprint"]["pss_mb"]["all"] > 50
    assert results["poisson"]["p99 within 200 ms"]["probes"][0]["rate_per_s"] > 100
    again = benchmarks(*words)
    assert again.returncode == done.returncode
    assert again.stdout.count("measured already") == len(LIVE)


@pytest.mark.slow
def test_the_gate_fails_where_a_request_was_cheaper_before(tmp_path: Path) -> None:
    accepted = tmp_path / "gate.json"
    gate = ["gate", "--accepted", str(accepted), "--columns", "binary", "--rounds", "1", "--seconds", "0.4"]
    done = benchmarks(*gate, "--accept")
    assert done.returncode == 0, done.stderr
    result = json.loads(accepted.read_text())
    assert result["columns"]["binary"]["engines"] > 1  # a served image costs more than a bare one
    result["columns"]["binary"]["engines"] /= 10
    accepted.write_text(json.dumps(result))
    dearer = benchmarks(*gate)
    assert dearer.returncode == 1, dearer.stderr
    assert "DEARER" in dearer.stdout
