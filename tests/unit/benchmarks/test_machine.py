"""What is told under every table: the command that measured it."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks.machine import spell_command

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def test_the_command_can_be_pasted_and_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["photos", "--server-args", "--max-batch-rows 4 --workers 1", "--out", "/home/me/photos.json"]
    monkeypatch.setattr(sys, "argv", ["/x/benchmarks/__main__.py", *words])
    told = spell_command()
    assert told == "python -m benchmarks photos --server-args '--max-batch-rows 4 --workers 1' --out photos.json"
    assert shlex.split(told) == ["python", "-m", "benchmarks", *words[:-1], "photos.json"]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_command_of_a_result_can_be_pasted(path: Path) -> None:
    for command in re.findall(r'^ +"command": "(.*)",?$', path.read_text(), re.MULTILINE):
        words = shlex.split(command)
        assert words[:2] == ["python", "-m"]
        if "--server-args" in words:  # its flags are one word
            following = words[words.index("--server-args") + 1]
            assert " " in following or not following.startswith("--")
