"""What there is to learn from, before any pixel is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.errors import TrainingError

SPLITS: Final = ("train", "validation", "test")
MIN_CLASSES: Final = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled picture.

    Args:
        split: "train", "validation" or "test".
        label: Its class's index in `Catalogue.labels`.
        name: The file's name, unique within its split and class.
        content: Where its bytes are: a file, or the bytes themselves.
    """

    split: str
    label: int
    name: str
    content: Path | bytes

    def read(self) -> bytes:
        """Returns the encoded picture."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    @property
    def place(self) -> str:
        """Where a person finds the picture."""
        return f"{self.split}/{self.name}" if isinstance(self.content, bytes) else str(self.content)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every picture of a data set.

    Args:
        source: The folder's name, or the embedded set's.
        labels: `labels[i]` names class i.
        items: All pictures, in any order.

    Raises:
        TrainingError: There are fewer than two classes, or a class has no picture in a split.
    """

    source: str
    labels: tuple[str, ...]
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        if len(self.labels) < MIN_CLASSES:
            raise TrainingError(
                f"expected at least {MIN_CLASSES} classes in '{self.source}', received {len(self.labels)}"
                f" ({', '.join(self.labels) or 'none'}); put one folder per class under each split"
            )
        for split in self.splits:
            found = {item.label for item in self.of(split)}
            empty = [label for index, label in enumerate(self.labels) if index not in found]
            if empty:
                raise TrainingError(
                    f"expected pictures in every class of the {split} split of '{self.source}', received none in"
                    f" {', '.join(empty)}; add pictures or remove the class from every split"
                )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that exist; `validation` may be missing."""
        present = {item.split for item in self.items}
        return tuple(split for split in SPLITS if split in present or split != "validation")

    def of(self, split: str) -> tuple[Item, ...]:
        """Returns one split's pictures, in a fixed order."""
        return ordered(item for item in self.items if item.split == split)


def ordered(items: Iterable[Item]) -> tuple[Item, ...]:
    """Sorts pictures by split, class and name, so that nothing depends on the order in which a disk lists them."""
    return tuple(sorted(items, key=lambda item: (item.split, item.label, item.name)))
