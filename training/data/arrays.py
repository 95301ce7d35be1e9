"""Labelled arrays become a catalogue: what CIFAR's, MNIST's and Keras's files have in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.data.catalogue import Catalogue, Item, Pixels
from training.errors import TrainingError

_GREY_DIMENSIONS: Final = 3
_COLOUR_DIMENSIONS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One split as arrays, straight from its file.

    Args:
        rows: Expected as `uint8[n, h, w]`, `uint8[n, h, w, 1]` or `uint8[n, h, w, 3]`.
        labels: Expected as whole numbers, `[n]` or `[n, 1]`.
    """

    rows: NDArray[Any]
    labels: NDArray[Any]


def catalogue(source: str, form: str, splits: Mapping[str, Labelled], names: Sequence[str] = ()) -> Catalogue:
    """Makes a catalogue of arrays; picture i of a split is called `0000i`, so the same data have the same names.

    Args:
        source: What the data are called.
        form: What they are on disk.
        splits: "train", "test" and perhaps "validation".
        names: `names[i]` names class i; without them, classes are called by their numbers.

    Raises:
        TrainingError: Shapes, types, numbers of rows or labels do not fit.
    """
    for split, arrays in splits.items():
        _check(f"{split} split of '{source}'", arrays, names)
    labels = tuple(names) or tuple(
        str(index) for index in range(1 + max(_largest(arrays) for arrays in splits.values()))
    )
    items = tuple(item for split, arrays in splits.items() for item in _items(split, arrays))
    return Catalogue(source, labels, items, form)


def _items(split: str, arrays: Labelled) -> Iterator[Item]:
    rows = arrays.rows[..., 0] if arrays.rows.shape[3:] == (1,) else arrays.rows
    for index, label in enumerate(arrays.labels.ravel().tolist()):
        yield Item(split, label, f"{index:05}.png", Pixels(rows, index))


def _largest(arrays: Labelled) -> int:
    return int(arrays.labels.max())


def _check(where: str, arrays: Labelled, names: Sequence[str]) -> None:
    rows, labels = arrays.rows, arrays.labels
    grey = rows.ndim == _GREY_DIMENSIONS or rows.shape[3:] == (1,)
    colour = rows.ndim == _COLOUR_DIMENSIONS and rows.shape[3:] == (3,)
    if rows.dtype != np.uint8 or not (grey or colour) or 0 in rows.shape:
        raise TrainingError(
            f"expected pictures as uint8[n, height, width] or uint8[n, height, width, 1 or 3] in the {where}, received"
            f" {rows.dtype}{list(rows.shape)}; convert them to pixels 0 to 255, channels last"
        )
    if labels.dtype.kind not in "iu" or labels.shape not in {(len(rows),), (len(rows), 1)}:
        raise TrainingError(
            f"expected one whole number per picture as labels of the {where}, [{len(rows)}], received"
            f" {labels.dtype}{list(labels.shape)}; pictures and labels must come from the same file or pair of files"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (names and highest >= len(names)):
        limit = f"0 to {len(names) - 1} ({len(names)} classes)" if names else "0 or more"
        raise TrainingError(
            f"expected labels of {limit} in the {where}, received {lowest} to {highest};"
            " check that names and labels belong together"
        )
