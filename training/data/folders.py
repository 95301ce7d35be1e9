"""A folder of class folders: `<root>/<split>/<class>/<file>`, or without splits `<root>/<class>/<file>`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from training.data.catalogue import SPLITS, UNDIVIDED, Catalogue, Item, shortly
from training.errors import TrainingError

LAYOUT: Final = "<root>/<split>/<class>/<file> with the splits train and test (validation is optional)"
UNDIVIDED_LAYOUT: Final = "<root>/<class>/<file>, which is divided 70/15/15"
_NAMES: Final = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
}
# What desktop systems leave behind in folders; hidden files are passed over too.
_LEFT_BEHIND: Final = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


def catalogue(root: Path) -> Catalogue:
    """Lists the pictures of a folder.

    Args:
        root: Holds `train`, `test` and, optionally, `validation` (or `val`, or `valid`), each with one folder per
            class; or one folder per class, if the data are still to be divided.

    Raises:
        TrainingError: The folder is missing, is laid out otherwise, or its splits have different classes.
    """
    splits = _splits(root)
    classes = {folder: {entry.name for entry in _folders(folder)} for folder in splits.values()}
    _refuse_different(root, classes)
    labels = _in_order(next(iter(classes.values())))
    items = tuple(
        Item(split, index, file.name, file, file.relative_to(root).as_posix())
        for split, folder in splits.items()
        for index, label in enumerate(labels)
        for file in _files(folder / label)
    )
    form = "class folders" if UNDIVIDED not in splits else "class folders without splits"
    return Catalogue(root.resolve().name, labels, items, form)


def _splits(root: Path) -> dict[str, Path]:
    """Finds each split's folder, `train` first; a root without any split is itself the one split."""
    found = {folder.name for folder in _folders(root)}
    named = sorted(found & set(_NAMES))
    if found and not named:
        return {UNDIVIDED: root}
    if found - set(named) or not {"train", "test"} <= found:
        raise TrainingError(
            f"expected {LAYOUT}, or {UNDIVIDED_LAYOUT}; received in {root}: {shortly(sorted(found)) or 'no folders'};"
            f" {_advice(found - set(named), found)}"
        )
    if len({_NAMES[name] for name in named}) < len(named):
        raise TrainingError(f"expected one validation split in {root}, received {shortly(named)}; keep one of them")
    return {split: root / name for split in SPLITS for name in named if _NAMES[name] == split}


def _advice(others: set[str], found: set[str]) -> str:
    if others and found != others:
        return (
            f"splits and other folders ({shortly(sorted(others))}) cannot be mixed, move the class folders into splits"
        )
    return "add the missing split" if found else "put one folder per class there"


def _refuse_different(root: Path, classes: dict[Path, set[str]]) -> None:
    first, *others = classes
    for folder in others:
        more, fewer = sorted(classes[folder] - classes[first]), sorted(classes[first] - classes[folder])
        if more or fewer:
            difference = (
                f"only in {folder.name}: {shortly(more)}" if more else f"only in {first.name}: {shortly(fewer)}"
            )
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
            raise TrainingError(
                f"expected only pictures in {folder}, received the folder {entry.name};"
                f" use {LAYOUT}, or {UNDIVIDED_LAYOUT}"
            )
        yield entry


def _is_left_behind(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name in _LEFT_BEHIND
