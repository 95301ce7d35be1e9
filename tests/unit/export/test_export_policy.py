"""promote, rollback: every policy that is written is one that the server takes, and the way back is never lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import policy, promotion
from export.__main__ import main
from export.errors import ExportError
from server.routing import parse_policy
from tests.unit.export.small_bundles import write_small


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        write_small(tmp_path, "m", version)
    return tmp_path


def in_force(models: Path) -> Any:
    """The policy, once the server's own reader has taken it; None where there is none."""
    path = models / "m" / "policy.json"
    if not path.exists():
        return None
    parse_policy(path.read_bytes())
    return json.loads(path.read_text())


def put(models: Path, value: dict[str, Any]) -> None:
    (models / "m" / "policy.json").write_text(json.dumps(value))


def promote(models: Path, version: int, *steps: float, **named: Any) -> promotion.Plan:
    return promotion.promote(models, "m", version, steps or (100.0,), every_s=0, say=lambda _: None, **named)


def rollback(models: Path) -> None:
    promotion.rollback(models, "m", lambda _: None)


def test_at_once_pins_the_version_and_keeps_the_one_before_loaded(models: Path) -> None:
    put(models, {"default": 1})
    promote(models, 3)
    assert in_force(models) == {"default": 3, "versions": [1, 3]}
    assert {path.name for path in (models / "m").iterdir()} == {"1", "2", "3", "policy.json", "policy.history.json"}


def test_steps_are_in_force_one_after_the_other(models: Path) -> None:
    put(models, {"default": 2})
    seen: list[Any] = []
    promote(models, 3, 10, 50, 100, wait=lambda seconds: seen.append(in_force(models)))
    rest = {"default": 2, "versions": [2, 3]}
    assert seen == [rest | {"canary": {"version": 3, "percent": share}} for share in (10, 50)]
    assert in_force(models) == {"default": 3, "versions": [2, 3]}


def test_what_the_user_put_there_stays(models: Path) -> None:
    theirs = {"shadow": {"version": 1, "percent": 5}, "versions": "latest:2"}
    put(models, {"default": 2, "ab": {"percent": {"1": 50}}, **theirs})
    promote(models, 3)
    assert in_force(models) == {"default": 3, **theirs}
    rollback(models)
    assert in_force(models) == {"default": 2, "ab": {"percent": {"1": 50}}, **theirs}


def test_the_list_of_an_earlier_promotion_is_not_taken_for_the_users(models: Path) -> None:
    put(models, {"default": 1})
    promote(models, 2)
    promote(models, 3)
    assert in_force(models) == {"default": 3, "versions": [2, 3]}
    rollback(models)
    assert in_force(models) == {"default": 2, "versions": [1, 2]}
    rollback(models)
    assert in_force(models) == {"default": 1}


def test_without_a_policy_the_version_before_is_pinned(models: Path) -> None:
    promote(models, 3, 20)
    assert in_force(models)["default"] == 2  # the latest that is not on trial
    rollback(models)
    assert in_force(models) == {"default": 2}


def test_rollback_of_what_nobody_promoted_goes_down_version_by_version(models: Path) -> None:
    rollback(models)
    assert in_force(models) == {"default": 2}
    rollback(models)
    assert in_force(models) == {"default": 1}
    with pytest.raises(ExportError, match="expected a version of m before 1 to return to"):
        rollback(models)
    assert in_force(models) == {"default": 1}


def test_an_interrupted_canary_stays_and_goes_on_and_comes_back(models: Path) -> None:
    put(models, {"default": 2})

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promote(models, 3, 10, 100, wait=interrupt)
    assert in_force(models)["canary"] == {"version": 3, "percent": 10}
    promote(models, 3, 40)
    promote(models, 3)
    assert in_force(models)["default"] == 3
    rollback(models)
    assert in_force(models) == {"default": 2}  # and not the canary


def test_a_policy_that_somebody_changed_between_two_steps_is_left_alone(models: Path) -> None:
    put(models, {"default": 2})
    with pytest.raises(ExportError, match="somebody has changed it"):
        promote(models, 3, 10, 100, wait=lambda _: rollback(models))
    assert in_force(models) == {"default": 2}


def test_a_crash_between_history_and_policy_does_not_eat_the_way_back(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(models, {"default": 1})
    promote(models, 2)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "write_policy", lambda *given: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            promote(models, 3)
    assert in_force(models)["default"] == 2
    rollback(models)
    assert in_force(models) == {"default": 1}


def test_a_rollback_leaves_no_share_to_the_version_it_takes_back(models: Path) -> None:
    put(models, {"default": 1, "canary": {"version": 3, "percent": 30}})
    promote(models, 3)
    rollback(models)
    assert in_force(models) == {"default": 1}


def damage(models: Path) -> None:
    (models / "m" / "3" / "model.onnx").write_bytes(b"the graph of version 4")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["9"], "expected version latest or one of [1, 2, 3] of m, received '9'"),
        (damage, ["3"], "it is not the file that was verified"),
        (lambda models: (models / "m" / "3" / "model.onnx").unlink(), ["3"], "which the manifest names, found none"),
        (lambda models: put(models, {"default": 3}), ["3"], "which answers everything already"),
        (lambda models: (models / "m" / "policy.json").write_text("{"), ["3"], "policy.json is no JSON"),
        (lambda models: (models / "m" / "policy.json").write_text("[]"), ["3"], "expected a JSON object in"),
        (lambda models: (models / "m" / "policy.history.json").write_text('{"records": [1]}'), ["3"], "no history"),
        (None, ["3", "--steps", "50,10"], "expected growing percentages up to 100"),
        (None, ["3", "--canary", "0"], "expected growing percentages up to 100"),
        (None, ["3", "--every", "soon"], "expected a time such as 90s, 5m or 1h"),
    ],
)
def test_what_cannot_be_promoted_is_one_line_and_changes_nothing(
    models: Path, prepare: Any, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if prepare:
        prepare(models)
    before = {path: path.read_bytes() for path in (models / "m").glob("policy*")}
    assert main(["promote", "m", *arguments, "--models", str(models)]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in (models / "m").glob("policy*")} == before


def test_a_canary_needs_another_version(tmp_path: Path) -> None:
    write_small(tmp_path, "m", 1)
    with pytest.raises(ExportError, match="1 is the only one"):
        promote(tmp_path, 1, 10)
    promote(tmp_path, 1)
    assert in_force(tmp_path) == {"default": 1, "versions": [1]}


def test_dry_runs_print_and_write_nothing(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--models", str(models)]
    assert main(["promote", "m", "3", "--steps", "10,100", "--dry-run", *folder]) == 0
    assert '"percent": 10' in capsys.readouterr().out
    assert main(["rollback", "m", "--dry-run", *folder]) == 0
    assert json.loads(capsys.readouterr().out) == {"default": 2}
    assert sorted(path.name for path in (models / "m").iterdir()) == ["1", "2", "3"]


def test_the_commands_tell_what_they_did(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--models", str(models)]
    assert main(["promote", "m", "latest", "--canary", "12.5", *folder]) == 0
    assert capsys.readouterr().out == "version 3 answers 12.5 %, version 2 the rest\n"
    assert main(["rollback", "m", *folder]) == 0
    assert capsys.readouterr().out == 'policy of m: {"default": 2}\n'


def test_ctrl_c_says_what_stays(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promotion, "promote", interrupt)
    assert main(["promote", "m", "3", "--models", str(models)]) == 130
    assert "this step stays" in capsys.readouterr().out


versions = st.sampled_from([1, 2, 3])
trials = st.fixed_dictionaries({"version": versions, "percent": st.floats(0, 100)})


@pytest.mark.slow
@settings(deadline=None, max_examples=25)  # every step is fsynced
@given(
    before=st.fixed_dictionaries(
        {"default": versions}, optional={"canary": trials, "shadow": trials, "versions": st.just("latest:2")}
    ),
    version=versions,
    steps=st.lists(st.floats(1, 100), min_size=1, max_size=3, unique=True).map(sorted),
)
def test_a_rollback_restores_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, Any], version: int, steps: list[float]
) -> None:
    models = tmp_path_factory.mktemp("models")
    for number in (1, 2, 3):
        write_small(models, "m", number)
    put(models, before)
    if before["default"] == version:
        return
    promote(models, version, *steps, wait=lambda _: in_force(models))
    assert policy.default_version(in_force(models), [1, 2, 3]) == (version if steps[-1] == 100 else before["default"])
    rollback(models)
    dropped = {"canary"} if before.get("canary", {}).get("version") == version else set()
    assert in_force(models) == {key: value for key, value in before.items() if key not in dropped}
