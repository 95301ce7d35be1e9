"""gc: what is asked for stays, numbers are never reused, and a deletion is seen whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest

from export import bundle, garbage
from export.__main__ import main
from tests.unit.export.small_bundles import write_small


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in range(1, 8):
        write_small(tmp_path, "m", version)
    return tmp_path


def collect(models: Path, *arguments: str) -> list[int]:
    assert main(["gc", "m", "--models", str(models), *arguments]) == 0
    return bundle.versions(models, "m")


def test_the_newest_stay(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(models, "--keep", "2") == [6, 7]  # 7 answers, a rollback would return to 6
    assert "delete  5" in capsys.readouterr().out


def test_what_the_policy_names_and_what_a_rollback_returns_to_stay(models: Path) -> None:
    shadow = {"version": 1, "percent": 1}
    (models / "m" / "policy.json").write_text(json.dumps({"default": 3, "shadow": shadow}))
    assert main(["promote", "m", "5", "--models", str(models)]) == 0
    assert collect(models, "--keep", "1") == [1, 3, 5, 7]
    assert main(["rollback", "m", "--models", str(models)]) == 0
    assert json.loads((models / "m" / "policy.json").read_text()) == {"default": 3, "shadow": shadow}


def test_the_highest_number_stays_even_if_nobody_uses_it(models: Path) -> None:
    (models / "m" / "policy.json").write_text('{"default": 2}')
    assert 7 in collect(models, "--keep", "1")
    with bundle.staging(models, "m") as stage:
        assert stage.version == 8


def test_keep_of_nothing_is_refused(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "m", "--keep", "0", "--models", str(models)]) == 2
    assert "numbers are never reused" in capfd.readouterr().err
    assert len(bundle.versions(models, "m")) == 7


def test_a_dry_run_deletes_nothing(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(models, "--keep", "1", "--dry-run") == [1, 2, 3, 4, 5, 6, 7]
    assert "delete  1" in capsys.readouterr().out


def test_a_version_is_hidden_before_its_first_file_goes(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", crash)
        with pytest.raises(KeyboardInterrupt):
            garbage.collect(models / "m", [1, 2])
    assert bundle.versions(models, "m") == [3, 4, 5, 6, 7]
    assert (models / "m" / ".deleted-1" / "manifest.json").exists()
    assert garbage.collect(models / "m", []) > 0  # the next one finishes
    assert not list((models / "m").glob(".*"))
