"""What docs/data.md shows works as it is written there."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from training import cli
from training.data import quarantine
from training.data.loading import load
from training.settings import TrainSettings
from training.validation import Likeness

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def commands() -> list[list[str]]:
    lines = re.findall(r"^    python -m training (.*?)(?:   .*)?$", PAGE, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_commands_are_understood() -> None:
    assert len(commands()) >= 10
    for words in commands():
        parsed = cli.parser().parse_args(words)
        if words[0] == "train":
            given = {key: getattr(parsed, key) for key in TrainSettings.model_fields}
            TrainSettings.parse({key: value for key, value in given.items() if value is not None})


def test_the_arrays_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "docs/data.md", "exec"), {})
    data = load(TrainSettings.parse({"data": "shapes.npz"}))
    assert (data.labels, data.image.shape) == (("circle", "square", "star"), (12, 12, 3))


def test_the_list_is_one(tmp_path: Path) -> None:
    file = tmp_path / "quarantine.json"
    file.write_text(block("json"))
    assert quarantine.read(file).reasons == {"train/cat/12.jpg": "the same as test/cat/7.jpg"}
    assert quarantine.read(file).to_json("photos") == json.loads(block("json"))


def test_figures_of_the_page_are_those_of_the_code() -> None:
    likeness = Likeness()
    assert f"at most {likeness.max_bits}\nbits (`--alike-bits`)" in PAGE
    assert f"at least {likeness.min_correlation} (`--alike-correlation`)" in PAGE


def test_the_walk_from_folder_to_quarantine(
    make_folder: Callable[..., Path], command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(count=12)
    monkeypatch.chdir(root.parent)
    (root / "train" / "cat" / "copy.png").write_bytes((root / "test" / "cat" / "1.png").read_bytes())
    train = next(words for words in commands() if "validation/photos/quarantine.json" in words)
    validate = commands()[commands().index(train) - 1]
    with pytest.raises(SystemExit, match="1"):
        command(*validate)
    parsed = cli.parser().parse_args(train)
    assert load(TrainSettings.parse({"data": parsed.data, "quarantine": parsed.quarantine})).record["quarantine"] == {
        "file": "quarantine.json", "left_out": 1,
    }  # fmt: skip
