"""Folders of class folders, and every way to lay them out wrongly."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data import folders, sources
from training.errors import TrainingError


def test_lists_every_picture_once(make_folder: Callable[..., Path]) -> None:
    catalogue = folders.catalogue(make_folder(count=3))
    assert catalogue.source == "photos"
    assert catalogue.labels == ("cat", "dog")
    assert catalogue.splits == ("train", "test")
    assert [(item.label, item.name) for item in catalogue.of("test")] == [
        (label, f"{number}.png") for label in (0, 1) for number in range(3)
    ]


def test_validation_split_is_optional(make_folder: Callable[..., Path]) -> None:
    catalogue = folders.catalogue(make_folder(splits=("train", "validation", "test")))
    assert catalogue.splits == ("train", "validation", "test")
    assert len(catalogue.of("validation")) == 8


def test_numbered_classes_are_ordered_by_value(make_folder: Callable[..., Path]) -> None:
    assert folders.catalogue(make_folder(classes=("10", "9", "2"), count=1)).labels == ("2", "9", "10")


def test_what_desktops_leave_behind_is_passed_over(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=1)
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "README.txt").write_text("about these pictures")
    assert [item.name for item in folders.catalogue(root).of("train")] == ["0.png", "0.png"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no data folder .*nowhere; expected 'digits', 'keras:NAME', a folder"):
        sources.catalogue_of(str(tmp_path / "nowhere"))


def test_a_file_that_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(TrainingError, match=r"photos\.zip is a file of another kind; expected 'digits'"):
        sources.catalogue_of(str(tmp_path / "photos.zip"))


def test_class_folders_without_splits(make_folder: Callable[..., Path]) -> None:
    catalogue = folders.catalogue(make_folder() / "train")
    assert (catalogue.splits, catalogue.labels, len(catalogue.items)) == (("all",), ("cat", "dog"), 8)
    assert catalogue.form == "class folders without splits"


def test_empty_class_folders_are_not_said_to_be_a_split(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    words = r"every class of 'photos', received none in cat, dog; add pictures or remove the class$"
    with pytest.raises(TrainingError, match=words):
        folders.catalogue(tmp_path / "photos")


def test_splits_and_classes_cannot_be_mixed(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "cow").mkdir()
    with pytest.raises(TrainingError, match=r"cow, test, train; splits and other folders \(cow\) cannot be mixed"):
        folders.catalogue(root)


@pytest.mark.parametrize("name", ["val", "valid"])
def test_other_names_of_the_validation_split(make_folder: Callable[..., Path], name: str) -> None:
    catalogue = folders.catalogue(make_folder(splits=("train", name, "test"), count=3))
    assert catalogue.splits == ("train", "validation", "test")
    assert {item.key for item in catalogue.of("validation")} == {
        f"{name}/{label}/{number}.png" for label in ("cat", "dog") for number in range(3)
    }


def test_two_validation_splits(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"expected one validation split in .*, received test, train, val, valid"):
        folders.catalogue(make_folder(splits=("train", "val", "valid", "test")))


def test_more_classes_than_a_thousand(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=[f"class {number}" for number in range(1001)], splits=("x",), count=1) / "x"
    with pytest.raises(TrainingError, match=r"at most 1,000 classes in 'x', received 1,001 \(.* and 996 more\)"):
        folders.catalogue(root)


def test_missing_test_split(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"received in .*photos: train; add the missing split"):
        folders.catalogue(make_folder(splits=("train",)))


def test_no_class(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(TrainingError, match=r"expected at least 2 classes .* received 0 \(none\)"):
        folders.catalogue(tmp_path)


def test_one_class(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"expected at least 2 classes in 'photos', received 1 \(cat\)"):
        folders.catalogue(make_folder(classes=("cat",)))


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_class_with_no_picture(make_folder: Callable[..., Path], split: str) -> None:
    root = make_folder(splits=("train", "validation", "test"))
    for file in (root / split / "dog").iterdir():
        file.unlink()
    with pytest.raises(TrainingError, match=rf"every class of the {split} split of 'photos', received none in dog"):
        folders.catalogue(root)


@pytest.mark.parametrize(("split", "words"), [("test", "only in train: dog"), ("train", "only in test: dog")])
def test_classes_differ_between_splits(make_folder: Callable[..., Path], split: str, words: str) -> None:
    root = make_folder(classes=("cat", "cow", "dog"))
    shutil.rmtree(root / split / "dog")
    with pytest.raises(TrainingError, match=words):
        folders.catalogue(root)


def test_folder_inside_a_class(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "train" / "cat" / "kittens").mkdir()
    with pytest.raises(TrainingError, match=r"expected only pictures in .*cat, received the folder kittens"):
        folders.catalogue(root)
