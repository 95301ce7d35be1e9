"""What a data set consists of: pictures per class and split, sizes, modes, formats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.data.catalogue import Catalogue, shortly
from training.validation_findings import NOTE, WARNING, Finding
from training.validation_pictures import Picture

_COMMON_SIZES: Final = 10
_UNEVEN: Final = 3  # the largest class has so many times the smallest one's pictures
_SMALL_CLASS: Final = 10  # fewer pictures than this measure nothing to better than 10 %
_GREY: Final = ("1", "L", "LA", "I", "F")


@dataclass(frozen=True, slots=True)
class Summary:
    """The shape of a data set.

    Args:
        classes: Split → class → usable pictures.
        sizes_px: The most common (height, width) → pictures, most common first.
        distinct_sizes: How many sizes there are.
        sides_px: The smallest, the median and the largest side.
        modes: Pillow's mode → pictures.
        kinds: File format → pictures.
        total_bytes: Of all files.
    """

    classes: Mapping[str, Mapping[str, int]]
    sizes_px: Mapping[tuple[int, int], int]
    distinct_sizes: int
    sides_px: tuple[int, int, int]
    modes: Mapping[str, int]
    kinds: Mapping[str, int]
    total_bytes: int


def summary(catalogue: Catalogue, pictures: Sequence[Picture]) -> Summary:
    """Counts what there is; pictures with a fault count in `total_bytes` only."""
    usable = [picture for picture in pictures if not picture.fault]
    counts = Counter((picture.item.split, picture.item.label) for picture in usable)
    sizes = Counter(picture.size_px for picture in usable)
    sides = [side for size in sizes.elements() for side in size] or [0]
    return Summary(
        classes={
            split: {label: counts[split, index] for index, label in enumerate(catalogue.labels)}
            for split in catalogue.splits
        },
        sizes_px=dict(sizes.most_common(_COMMON_SIZES)),
        distinct_sizes=len(sizes),
        sides_px=(min(sides), int(np.median(sides)), max(sides)),
        modes=dict(Counter(picture.mode for picture in usable).most_common()),
        kinds=dict(Counter(picture.kind for picture in usable).most_common()),
        total_bytes=sum(picture.size_bytes for picture in pictures),
    )


def findings(found: Summary) -> list[Finding]:
    """Finds what is uneven: classes, sizes, colours."""
    return [*_balance(found), *_sizes(found), *_modes(found)]


def _balance(found: Summary) -> list[Finding]:
    result = []
    for split, counts in found.classes.items():
        fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        if counts[most] > _UNEVEN * counts[fewest]:
            text = (
                f"the classes of {split} are uneven: {counts[most]:,} pictures of {most}, {counts[fewest]:,} of"
                f" {fewest}; accuracy alone says little, look at the recall of each class"
            )
            result.append(Finding(WARNING, "balance", text))
        small = [label for label, count in counts.items() if count < _SMALL_CLASS]
        if small:
            text = f"{len(small):,} classes of {split} have fewer than {_SMALL_CLASS} usable pictures: {shortly(small)}"
            result.append(Finding(WARNING, "small-class", text))
    return result


def _sizes(found: Summary) -> list[Finding]:
    if found.distinct_sizes <= 1:
        return []
    smallest, median, largest = found.sides_px
    text = (
        f"the pictures have {found.distinct_sizes:,} sizes, sides of {smallest:,} to {largest:,} pixels (median"
        f" {median:,}); training stretches all to one size (--image-size)"
    )
    return [Finding(NOTE, "sizes", text)]


def _modes(found: Summary) -> list[Finding]:
    grey = sum(count for mode, count in found.modes.items() if mode in _GREY or mode.startswith("I;"))
    total = sum(found.modes.values())
    if grey in {0, total}:
        return []
    text = f"{grey:,} of {total:,} pictures are grey, the others in colour: a class that alone is grey is known by that"
    return [Finding(WARNING, "modes", text)]
