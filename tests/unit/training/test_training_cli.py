"""The command line before anything is trained: help, listing, and input that cannot be used."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.training.finished_run import FACTS
from training import runs


@pytest.mark.slow
def test_help_imports_neither_tensorflow_nor_the_like() -> None:
    code = (
        "import sys; from training.cli import parser; parser().format_help();"
        "sys.exit(str({'keras', 'tensorflow', 'sklearn', 'matplotlib'} & set(sys.modules) or ''))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.stderr.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["examples:", "python -m training train --data photos"]),
        (["train", "--help"], ["--batch-size", "else 64", "models:", "cnn", "examples:", "--set dropout=0.3"]),
        (["evaluate", "--help"], ["NAME/NUMBER", "--runs"]),
    ],
)
def test_help_teaches(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: Sequence[str], words: Sequence[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command(*arguments)
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert [word for word in words if word not in shown] == []


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train", "--frobnicate", "1"], ["evaluate"]])
def test_words_that_are_no_command(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: Sequence[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command(*arguments)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--epochs", "0"], "error: --epochs: expected greater than or equal to 1; received '0'"),
        (["train", "--set", "dropout"], "error: --set: expected KEY=VALUE; received 'dropout'"),
        (["train", "--data", "no/such/folder"], "error: no data folder no/such/folder; expected 'digits'"),
        (["train", "--data", "my photos"], "error: the data folder's name cannot name the run"),
        (["train", "--model", "resnet9000"], "error: --model: expected one of binary, cnn, "),
        (["evaluate", "nothing"], "error: no finished run 'nothing' in "),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: Sequence[str],
    words: str,
) -> None:
    assert command(*arguments, "--runs", str(tmp_path)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(words)
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_corrupt_picture_is_named(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    make_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    root = make_folder()
    (root / "test" / "cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert command("train", "--data", str(root), "--runs", str(tmp_path / "runs")) == 2
    shown = capsys.readouterr().err
    assert "test/cat/1.png (" in shown
    assert shown.endswith("; remove or replace it\n")
    assert not (tmp_path / "runs").exists()


def test_list_without_runs(command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("list", "--runs", str(tmp_path / "none")) == 0
    assert "no runs in" in capsys.readouterr().out


def test_list_shows_every_run(command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for measured in ({"test": {"accuracy": 0.25}}, {"test": {"accuracy": 0.75}}, {}):
        with runs.draft(tmp_path, "digits") as folder:
            runs.write_json(folder / "metrics.json", measured)
            runs.publish(folder, FACTS)
    assert command("list", "--runs", str(tmp_path)) == 0
    head, first, second, unmeasured = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "model", "accuracy", "parameters", "epochs", "created"]
    assert first.split() == ["digits/1", "cnn", "0.2500", "1,234", "2", "2030-01-02T03:04:05Z"]
    assert second.split()[:3] == ["digits/2", "cnn", "0.7500"]
    assert unmeasured.split()[:3] == ["digits/3", "cnn", "?"]


def test_a_run_of_another_version_is_in_nobodys_way(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("ours", "theirs"):
        with runs.draft(tmp_path, name) as folder:
            runs.write_json(folder / "metrics.json", {"test": {"accuracy": 0.25}})
            runs.publish(folder, FACTS)
    runs.write_json(tmp_path / "theirs" / "1" / "run.json", {"schema": 2})
    assert command("list", "--runs", str(tmp_path)) == 0
    note, _, line = capsys.readouterr().out.splitlines()
    assert note.startswith(f"note: passed over 1 of the runs in {tmp_path}; the first: expected schema 1 in ")
    assert line.split()[0] == "ours/1"
    assert command("evaluate", "nothing", "--runs", str(tmp_path)) == 2
    assert "no finished run 'nothing'" in capsys.readouterr().err
    assert command("evaluate", "theirs", "--runs", str(tmp_path)) == 2
    assert "run.json, received 2; use the version of Shoal that wrote it" in capsys.readouterr().err


@pytest.mark.slow
def test_quiet_import_hides_native_remarks_unless_the_import_fails() -> None:
    code = (
        "import os\nfrom training.quiet import quiet_import\n"
        "with quiet_import(): os.write(2, b'hidden')\n"
        "os.write(2, b'shown')\n"
        "with quiet_import():\n    os.write(2, b'reason')\n    raise SystemExit(3)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=dict(os.environ))
    assert (finished.returncode, finished.stderr) == (3, b"shownreason")
