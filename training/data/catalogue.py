"""What there is to learn from, before any pixel is decoded."""

import io
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import TrainingError

SPLITS: Final = ("train", "validation", "test")
UNDIVIDED: Final = "all"  # the one split of data that come without splits, until `load` divides them
MIN_CLASSES: Final = 2
MAX_CLASSES: Final = 1_000  # as in ImageNet; more labels than that are usually file names taken for classes


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A picture that was never a file: one row of an array.

    Args:
        rows: `uint8[n, h, w]` or `uint8[n, h, w, 3]`, shared by all pictures of the array.
        index: Which row.
    """

    rows: NDArray[np.uint8]
    index: int

    @property
    def row(self) -> NDArray[np.uint8]:
        """The picture, `uint8[h, w]` or `uint8[h, w, 3]`."""
        row: NDArray[np.uint8] = self.rows[self.index]
        return row

    def png(self) -> bytes:
        """Returns the picture as a PNG file, which keeps every pixel."""
        encoded = io.BytesIO()
        Image.fromarray(self.row).save(encoded, format="PNG")
        return encoded.getvalue()


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled picture.

    Args:
        split: "train", "validation", "test", or "all" before data without splits are divided.
        label: Its class's index in `Catalogue.labels`.
        name: The file's name, unique within its split and class.
        content: Where its bytes are: a file, the bytes themselves, or a row of pixels.
        path: The file's path below the data's folder, with slashes, if there is a folder.
    """

    split: str
    label: int
    name: str
    content: Path | bytes | Pixels
    path: str = ""

    def read(self) -> bytes:
        """Returns the encoded picture."""
        if isinstance(self.content, Path):
            return self.content.read_bytes()
        return self.content.png() if isinstance(self.content, Pixels) else self.content

    @property
    def key(self) -> str:
        """What a quarantine list calls the picture: the same wherever the data's folder is."""
        return self.path or f"{self.split}/{self.name}"

    @property
    def place(self) -> str:
        """Where a person finds the picture."""
        return str(self.content) if isinstance(self.content, Path) else f"{self.split}/{self.name}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every picture of a data set.

    Args:
        source: The folder's name, or the embedded set's.
        labels: `labels[i]` names class i.
        items: All pictures, in any order.
        form: What the data are on disk, such as "class folders" or "CIFAR-10, binary".

    Raises:
        TrainingError: There are fewer than 2 classes or more than 1,000, or a class has no picture in a split.
    """

    source: str
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    form: str = "class folders"

    def __post_init__(self) -> None:
        self._refuse_number_of_classes()
        for split in self.splits:
            found = {item.label for item in self.items if item.split == split}
            empty = [label for index, label in enumerate(self.labels) if index not in found]
            if empty:
                where, every = (f"the {split} split of ", " from every split") if split != UNDIVIDED else ("", "")
                raise TrainingError(
                    f"expected pictures in every class of {where}'{self.source}', received none in"
                    f" {shortly(empty)}; add pictures or remove the class{every}"
                )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that exist; `validation` may be missing."""
        present = {item.split for item in self.items}
        if UNDIVIDED in present or not present:
            return (UNDIVIDED,)
        return tuple(split for split in SPLITS if split in present or split != "validation")

    def of(self, split: str) -> tuple[Item, ...]:
        """Returns one split's pictures, in a fixed order."""
        return ordered(item for item in self.items if item.split == split)

    def without(self, keys: AbstractSet[str]) -> Self:
        """Leaves pictures out.

        Args:
            keys: The `key` of each.

        Raises:
            TrainingError: A class is left without pictures.
        """
        return replace(self, items=tuple(item for item in self.items if item.key not in keys)) if keys else self

    def _refuse_number_of_classes(self) -> None:
        if len(self.labels) < MIN_CLASSES:
            raise TrainingError(
                f"expected at least {MIN_CLASSES} classes in '{self.source}', received {len(self.labels)}"
                f" ({', '.join(self.labels) or 'none'}); put one folder per class under each split"
            )
        if len(self.labels) > MAX_CLASSES:
            raise TrainingError(
                f"expected at most {MAX_CLASSES:,} classes in '{self.source}', received {len(self.labels):,}"
                f" ({shortly(self.labels)}); check that the folders are classes, or join some"
            )


def ordered(items: Iterable[Item]) -> tuple[Item, ...]:
    """Sorts pictures by split, class and name, so that nothing depends on the order in which a disk lists them."""
    return tuple(sorted(items, key=lambda item: (item.split, item.label, item.name)))


def shortly(names: Iterable[str], limit: int = 5) -> str:
    """Lists the first few names for a message, and counts the rest."""
    listed = list(names)
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
