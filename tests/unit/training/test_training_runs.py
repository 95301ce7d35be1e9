"""Run folders: numbered, never overwritten, never half there."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.finished_run import FACTS
from training import runs
from training.errors import Diverged, TrainingError


def finish(root: Path, name: str, **record: Any) -> runs.Run:
    with runs.draft(root, name) as folder:
        (folder / "file").write_text("x")
        return runs.publish(folder, FACTS | record)


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
            assert runs.publish(theirs, FACTS | {"who": "theirs"}).number == 1
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", overtaken)
        published = runs.publish(ours, FACTS | {"who": "ours"})
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


def test_incomplete_record(tmp_path: Path) -> None:
    run = finish(tmp_path, "a")
    runs.write_json(run.path / "run.json", {"schema": 1, **FACTS})
    with pytest.raises(TrainingError, match=r"expected name, run in .*run\.json, received none; train again"):
        runs.read(run.path)


def test_what_cannot_be_read_is_passed_over_and_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer, damaged, incomplete, good = (finish(tmp_path, "a") for _ in range(4))
    runs.write_json(newer.path / "run.json", {"schema": 2})
    (damaged.path / "run.json").write_text("{")
    runs.write_json(incomplete.path / "run.json", {"schema": 1})
    assert runs.every(tmp_path) == runs.every(tmp_path) == [good]
    told = capsys.readouterr().out
    assert f"note: passed over 3 of the runs in {tmp_path}; the first: expected schema 1 in {newer.path}" in told
    assert told.count("note:") == 1


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


def leave(root: Path, key: str, *, checkpoint: bool = True) -> Path:
    """Leaves a draft behind as kill -9 does: unlocked, unfinished."""
    left: list[Path] = []

    def stop_half_way() -> None:
        with runs.draft(root, "a", key=key) as folder:
            left.append(folder)
            (folder / "model.keras").write_text("half")
            (folder / ".metrics.json.1234").write_text("half")
            (folder / runs.CHECKPOINT).mkdir()
            (folder / runs.CHECKPOINT / "state.npz").write_text("whole")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    if not checkpoint:
        (left[0] / runs.CHECKPOINT / "state.npz").unlink()
        (left[0] / runs.CHECKPOINT).rmdir()
    return left[0]


def test_unfinished_run_of_the_same_key_is_taken_up(tmp_path: Path) -> None:
    left = leave(tmp_path, "k1")
    with runs.draft(tmp_path, "a", key="k1") as folder:
        assert folder == left
        assert sorted(path.name for path in folder.iterdir()) == [".checkpoint", ".lock"]  # no half files
        assert (folder / runs.CHECKPOINT / "state.npz").read_text() == "whole"
        run = runs.publish(folder, {})
    assert [path.name for path in run.path.iterdir()] == ["run.json"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1"]


def test_two_processes_never_share_a_draft(tmp_path: Path) -> None:
    left = leave(tmp_path, "k1")
    with runs.draft(tmp_path, "a", key="k1") as ours, runs.draft(tmp_path, "a", key="k1") as theirs:
        assert ours == left
        assert theirs != left
        with (ours / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_unfinished_run_of_other_settings_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = leave(tmp_path, "k1")
    with runs.draft(tmp_path, "a", key="k2") as folder:
        assert folder != left
        runs.publish(folder, {})
    assert "holds 1 unfinished of other settings or data" in capsys.readouterr().out
    assert (left / runs.CHECKPOINT / "state.npz").is_file()


def test_draft_without_checkpoint_is_removed_by_the_next(tmp_path: Path) -> None:
    left = leave(tmp_path, "k1", checkpoint=False)
    assert left.is_dir()
    with runs.draft(tmp_path, "a", key="k2"):
        assert not left.exists()


def test_fresh_removes_what_is_unfinished_under_the_key(tmp_path: Path) -> None:
    left, other = leave(tmp_path, "k1"), leave(tmp_path, "k2")
    with runs.draft(tmp_path, "a", key="k1", fresh=True) as folder:
        assert folder != left
        assert not left.exists()
        assert other.exists()


def test_diverged_run_is_not_kept(tmp_path: Path) -> None:
    def diverge() -> None:
        with runs.draft(tmp_path, "a", key="k1") as folder:
            (folder / runs.CHECKPOINT).mkdir()
            raise Diverged("nan")

    with pytest.raises(Diverged):
        diverge()
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_that_was_never_whole_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail_in_the_first_checkpoint() -> None:
        with runs.draft(tmp_path, "a", key="k1") as folder:
            (folder / runs.CHECKPOINT).mkdir()
            (folder / runs.CHECKPOINT / "best-1.npz").write_text("whole, and nothing to go on from")
            raise TrainingError("cannot write the checkpoint")

    with pytest.raises(TrainingError):
        fail_in_the_first_checkpoint()
    assert "is kept" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_killed_after_the_rename_leaves_nothing_for_ever(tmp_path: Path) -> None:
    run = finish(tmp_path, "a")
    (run.path / runs.CHECKPOINT).mkdir()
    (run.path / ".lock").write_text("")
    finish(tmp_path, "a")
    assert sorted(path.name for path in run.path.iterdir()) == ["file", "run.json"]
