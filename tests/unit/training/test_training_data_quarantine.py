"""A quarantine list: what it names is left out, and counted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data import quarantine
from training.data.loading import Dataset, load
from training.data.quarantine import Quarantine
from training.errors import TrainingError
from training.settings import TrainSettings


def listed(root: Path, *keys: str) -> Path:
    file = root.parent / "list.json"
    file.write_text(json.dumps(Quarantine(dict.fromkeys(keys, "a reason")).to_json("photos")))
    return file


def loaded(root: Path, file: Path, **values: object) -> Dataset:
    asked = {"data": str(root), "quarantine": str(file), "runs": root.parent / "runs", **values}
    return load(TrainSettings.parse(asked))


def test_what_is_listed_is_left_out_and_counted(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=10)
    (root / "train" / "cat" / "0.png").write_text("no picture")
    data = loaded(root, listed(root, "train/cat/0.png", "test/dog/3.png"))
    places = {item.key for split in (data.train, data.validation, data.test) for item in split.items}
    assert len(places) == 38
    assert not places & {"train/cat/0.png", "test/dog/3.png"}
    assert data.record["quarantine"] == {"file": "list.json", "left_out": 2}


def test_the_fingerprint_is_of_what_remains(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=10)
    with_list = loaded(root, listed(root, "train/cat/0.png"))
    (root / "train" / "cat" / "0.png").unlink()
    without = load(TrainSettings.parse({"data": str(root), "runs": root.parent / "runs"}))
    assert with_list.fingerprint == without.fingerprint
    assert with_list.record["members"] == without.record["members"]


def test_pictures_of_a_folder_without_splits(make_folder: Callable[..., Path]) -> None:
    root = make_folder(splits=("all",), count=10) / "all"
    data = loaded(root, listed(root, "cat/0.png"), name="photos")
    assert sum(data.record["rows"].values()) == 19


def test_an_empty_list_leaves_nothing_out(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=10)
    assert loaded(root, listed(root)).record["quarantine"] == {"file": "list.json", "left_out": 0}


def test_pictures_that_are_gone_are_told(make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(count=10)
    data = loaded(root, listed(root, "train/cat/0.png", "train/cat/gone.png"))
    assert data.record["quarantine"]["left_out"] == 1
    assert "note: 1 of the pictures in" in capsys.readouterr().out


def test_a_list_for_other_data_is_refused(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    with pytest.raises(TrainingError, match=r"expected pictures of 'photos' in .*, received only others \(a/b\.png\)"):
        loaded(root, listed(root, "a/b.png"))


def test_a_list_that_empties_a_class(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=1)
    with pytest.raises(TrainingError, match=r"every class of the test split of 'photos', received none in dog"):
        loaded(root, listed(root, "test/dog/0.png"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'files'"),
        ('{"schema": 1, "files": ["a.png"]}', "TypeError"),
        ('{"schema": 2, "files": []}', "expected schema 1 in .*, received 2"),
    ],
)
def test_what_is_no_list(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "list.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TrainingError, match=rf"--quarantine: .*{words}"):
        quarantine.read(file)
