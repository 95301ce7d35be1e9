"""The regression gate: what is a tenth dearer than the last accepted result fails."""

from pathlib import Path

import pytest

from benchmarks.gate import compare, write

ACCEPTED = {"model": "digits", "columns": {"binary": {"engines": 2.0}, "json": {"engines": 4.0}}}


def test_a_request_that_is_dearer_fails_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(ACCEPTED, "digits", {"binary": [2.1, 2.3, 2.4], "json": [4.0]}, tolerance=0.1) == 1
    said = capsys.readouterr().out
    assert "DEARER" in said
    assert "+15%" in said


@pytest.mark.parametrize("ratios", [[1.5], [2.0], [2.19], [1.0, 2.1, 9.0]])
def test_one_round_too_many_is_not_enough_to_fail(ratios: list[float]) -> None:
    assert compare(ACCEPTED, "digits", {"binary": ratios}, tolerance=0.1) == 0


def test_a_new_kind_of_request_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(ACCEPTED, "digits", {"grpc": [9.0]}, tolerance=0.1) == 0
    assert "new" in capsys.readouterr().out


def test_another_models_result_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a result for pets to compare with, received one for digits"):
        compare(ACCEPTED, "pets", {"binary": [2.0]}, tolerance=0.1)


def test_what_is_accepted_is_what_is_compared_with(tmp_path: Path) -> None:
    import json  # noqa: PLC0415

    write(tmp_path / "results" / "gate.json", "digits", {"binary": [3.0, 1.0, 2.0]})
    accepted = json.loads((tmp_path / "results" / "gate.json").read_text())
    assert accepted["columns"]["binary"]["engines"] == 2.0
    assert compare(accepted, "digits", {"binary": [2.21]}, tolerance=0.1) == 1
