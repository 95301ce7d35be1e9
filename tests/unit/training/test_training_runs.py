"""Run folders: numbered, never overwritten, never half there."""

import json
from pathlib import Path
from typing import Any

import pytest

from training import runs
from training.errors import TrainingError


def finish(root: Path, name: str, **record: Any) -> runs.Run:
    with runs.draft(root, name) as folder:
        (folder / "file").write_text("x")
        return runs.publish(folder, record)


def test_runs_are_counted_from_1(tmp_path: Path) -> None:
    first, second, other = finish(tmp_path, "a"), finish(tmp_path, "a"), finish(tmp_path, "b")
    assert [(run.name, run.number) for run in (first, second, other)] == [("a", 1), ("a", 2), ("b", 1)]
    assert first.path == tmp_path / "a" / "1"
    assert json.loads((second.path / "run.json").read_text())["run"] == 2
    assert (first.path / "file").read_text() == "x"
    assert runs.every(tmp_path) == [first, second, other]


def test_tenth_run_comes_after_the_ninth(tmp_path: Path) -> None:
    numbers = [finish(tmp_path, "a").number for _ in range(11)]
    assert numbers == list(range(1, 12))
    assert [run.number for run in runs.every(tmp_path)] == numbers
    assert runs.resolve(tmp_path, "a").number == 11


def test_number_in_use_by_anything_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    (tmp_path / "a" / "1" / "notes.txt").write_text("no run")
    (tmp_path / "a" / "2").write_text("no folder")
    assert finish(tmp_path, "a").number == 3
    assert [run.number for run in runs.every(tmp_path)] == [3]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_remains_of_a_failed_run(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with runs.draft(tmp_path, "a") as folder:
            (folder / "model.keras").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_leaves_earlier_ones_alone(tmp_path: Path) -> None:
    first = finish(tmp_path, "a")
    with pytest.raises(ValueError, match="x"), runs.draft(tmp_path, "a"):
        raise ValueError("x")
    assert list((tmp_path / "a").iterdir()) == [first.path]


def test_drafts_are_hidden_and_not_listed(tmp_path: Path) -> None:
    finish(tmp_path, "a")
    with runs.draft(tmp_path, "a") as folder:
        assert folder.name.startswith(".")
        assert [run.number for run in runs.every(tmp_path)] == [1]


def test_two_trainings_at_once_get_two_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with runs.draft(tmp_path, "a") as ours, runs.draft(tmp_path, "a") as theirs:
        rename = Path.rename

        def overtaken(self: Path, target: Path) -> Path:
            monkeypatch.setattr(Path, "rename", rename)
            assert runs.publish(theirs, {"who": "theirs"}).number == 1
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", overtaken)
        published = runs.publish(ours, {"who": "ours"})
    assert published.number == 2
    assert [run.record["who"] for run in runs.every(tmp_path)] == ["theirs", "ours"]
    assert runs.read(tmp_path / "a" / "2").number == 2


def test_resolves_path_name_and_number(tmp_path: Path) -> None:
    first, second = finish(tmp_path, "a"), finish(tmp_path, "a")
    assert runs.resolve(tmp_path, "a") == second
    assert runs.resolve(tmp_path, "a/1") == first
    assert runs.resolve(tmp_path / "elsewhere", str(first.path)) == first
    assert runs.resolve(tmp_path / "elsewhere", str(first.path.parent)) == second


def test_unknown_run_lists_the_known(tmp_path: Path) -> None:
    finish(tmp_path, "digits")
    with pytest.raises(
        TrainingError, match=r"no finished run 'photos' in .*; expected a run folder or one of: digits;"
    ):
        runs.resolve(tmp_path, "photos")


def test_run_of_another_schema(tmp_path: Path) -> None:
    run = finish(tmp_path, "a")
    runs.write_json(run.path / "run.json", {"schema": 2})
    with pytest.raises(TrainingError, match=r"expected schema 1 in .*run\.json, received 2"):
        runs.resolve(tmp_path, "a")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_damaged_record(tmp_path: Path, text: str) -> None:
    run = finish(tmp_path, "a")
    (run.path / "run.json").write_text(text)
    with pytest.raises(TrainingError, match=r"run\.json"):
        runs.read(run.path)


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    runs.write_json(file, {"accuracy": 0.5})
    with pytest.raises(TypeError):
        runs.write_json(file, {"accuracy": object()})
    assert json.loads(file.read_text()) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [file]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="choose another folder with --runs"), runs.draft(tmp_path / "file", "a"):
        pass
