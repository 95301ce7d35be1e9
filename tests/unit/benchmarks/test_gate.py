"""The regression gate: what is a tenth dearer than the last accepted result fails."""

import argparse
import json
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks import gate
from benchmarks.gate import compare, write

ROOT = Path(__file__).resolve().parents[3]

ACCEPTED = {"model": "digits", "columns": {"binary": {"engines": 2.0}, "json": {"engines": 4.0}}}


def test_a_request_that_is_dearer_fails_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(ACCEPTED, {"binary": [2.1, 2.3, 2.4], "json": [4.0]}, tolerance=0.1) == 1
    said = capsys.readouterr().out
    assert "DEARER" in said
    assert "+15%" in said


@pytest.mark.parametrize("ratios", [[1.5], [2.0], [2.19], [1.0, 2.1, 9.0]])
def test_one_round_too_many_is_not_enough_to_fail(ratios: list[float]) -> None:
    assert compare(ACCEPTED, {"binary": ratios}, tolerance=0.1) == 0


def test_a_new_kind_of_request_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(ACCEPTED, {"grpc": [9.0]}, tolerance=0.1) == 0
    assert "new" in capsys.readouterr().out


def test_another_models_result_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def serve(*_: object) -> NoReturn:
        raise AssertionError("a server was started")

    monkeypatch.setattr(gate, "serve", serve)
    accepted = tmp_path / "gate.json"
    accepted.write_text(json.dumps(ACCEPTED | {"model": "pets"}))
    parser = argparse.ArgumentParser()
    gate.add_arguments(parser)
    words = ["--models", str(ROOT / "models"), "--accepted", str(accepted)]
    with pytest.raises(ValueError, match=r"expected a result for digits in .*gate\.json, received one for pets: name"):
        gate.run_command(parser.parse_args(words))
    with pytest.raises(AssertionError, match="a server was started"):
        gate.run_command(parser.parse_args([*words, "--accept"]))
    assert gate.read_accepted(accepted, "pets")["model"] == "pets"


def test_what_is_accepted_is_what_is_compared_with(tmp_path: Path) -> None:
    write(tmp_path / "results" / "gate.json", "digits", {"binary": [3.0, 1.0, 2.0]})
    accepted = json.loads((tmp_path / "results" / "gate.json").read_text())
    assert accepted["columns"]["binary"]["engines"] == 2.0
    assert compare(accepted, {"binary": [2.21]}, tolerance=0.1) == 1
