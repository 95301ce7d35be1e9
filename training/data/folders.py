"""A folder of class folders: `<root>/<split>/<class>/<file>`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from training.data.catalogue import SPLITS, Catalogue, Item
from training.errors import TrainingError

LAYOUT: Final = "<root>/<split>/<class>/<file> with the splits train and test (validation is optional)"
# What desktop systems leave behind in folders; hidden files are passed over too.
_LEFT_BEHIND: Final = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


def catalogue(root: Path) -> Catalogue:
    """Lists the pictures of a folder.

    Args:
        root: Holds `train`, `test` and, optionally, `validation`, each with one folder per class.

    Raises:
        TrainingError: The folder is missing, is laid out otherwise, or its splits have different classes.
    """
    if not root.is_dir():
        raise TrainingError(f"no data folder {root}; expected 'digits' or a folder {LAYOUT}")
    splits = _splits(root)
    classes = {split: {folder.name for folder in _folders(root / split)} for split in splits}
    _refuse_different(root, classes)
    labels = _in_order(classes["train"])
    items = tuple(
        Item(split, index, file.name, file)
        for split in splits
        for index, label in enumerate(labels)
        for file in _files(root / split / label)
    )
    return Catalogue(root.resolve().name, labels, items)


def _splits(root: Path) -> list[str]:
    found = {folder.name for folder in _folders(root)}
    unknown = sorted(found - set(SPLITS))
    if unknown or not {"train", "test"} <= found:
        raise TrainingError(
            f"expected {LAYOUT}; received in {root}: {_shortly(sorted(found)) or 'no folders'};"
            f" {'move the class folders into train/ and test/' if unknown else 'add the missing split'}"
        )
    return [split for split in SPLITS if split in found]


def _refuse_different(root: Path, classes: dict[str, set[str]]) -> None:
    for split, names in classes.items():
        more, fewer = sorted(names - classes["train"]), sorted(classes["train"] - names)
        if more or fewer:
            difference = f"only in {split}: {_shortly(more)}" if more else f"only in train: {_shortly(fewer)}"
            raise TrainingError(
                f"expected the same classes in every split of {root}, received {difference};"
                " add the missing class folders or remove them from every split"
            )


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Sorts classes by name, or by value where all are numbers, so that class "10" is not index 2."""
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _folders(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if entry.is_dir() and not _is_left_behind(entry))


def _files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if _is_left_behind(entry):
            continue
        if entry.is_dir():
            raise TrainingError(f"expected only pictures in {folder}, received the folder {entry.name}; use {LAYOUT}")
        yield entry


def _is_left_behind(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name in _LEFT_BEHIND


def _shortly(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
