"""What is wrong with a data set, as findings, and which pictures a quarantine list should name for it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.validation_pictures import Picture

ERROR: Final = "error"
WARNING: Final = "warning"
NOTE: Final = "note"
LEVELS: Final = (ERROR, WARNING, NOTE)
# Of a picture and its copies the one is kept that figures are measured on, so that they stay comparable.
_KEPT_FIRST: Final = ("test", "validation", "train", "all")
_ALIKE_BY_NATURE: Final = 0.05  # with more pictures in look-alike pairs than this share, likeness proves no copy


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault, and where it is.

    Args:
        level: "error": training fails or its figures are wrong; "warning": worth a look; "note": good to know.
        kind: What it is, in one word or two; the key in `report.json`.
        text: What was found and what it means, in a sentence.
        count: How many groups there are.
        groups: The pictures concerned, those that belong together in one group.
    """

    level: str
    kind: str
    text: str
    count: int = 1
    groups: tuple[tuple[Picture, ...], ...] = ()


def corrupt(pictures: Sequence[Picture]) -> list[Finding]:
    """Finds files that are no usable pictures."""
    found = tuple((picture,) for picture in pictures if picture.fault)
    return _finding(ERROR, "corrupt", found, "files are no usable pictures; training would stop at them")


def copies(pictures: Sequence[Picture]) -> list[Finding]:
    """Finds the same contents under several names: between splits, under several classes, and within a split."""
    conflicts, leaks, repeats = [], [], []
    for group in same(pictures):
        if len({picture.item.label for picture in group}) > 1:
            conflicts.append(group)
        if len({picture.item.split for picture in group}) > 1:
            leaks.append(group)
        elif len({picture.item.label for picture in group}) == 1:
            repeats.append(group)
    return [
        *_finding(ERROR, "conflict", conflicts, "pictures lie in more than one class; at most one of them is right"),
        *_finding(ERROR, "leak", leaks, "pictures lie in more than one split; what is measured was learnt by heart"),
        *_finding(WARNING, "repeat", repeats, "pictures lie in the same class of a split more than once"),
    ]


def same(pictures: Sequence[Picture]) -> list[tuple[Picture, ...]]:
    """Groups pictures of the same contents, the one to keep first."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if not picture.fault:
            groups[picture.sha256].append(picture)
    return [tuple(sorted(group, key=_keeping)) for group in groups.values() if len(group) > 1]


def look_alikes(pictures: Sequence[Picture], pairs: NDArray[np.int64]) -> list[Finding]:
    """Sorts look-alike pairs by what they mean.

    Args:
        pictures: All pictures.
        pairs: `int64[pairs, 2]`, numbers of pictures.
    """
    found: dict[str, list[tuple[Picture, ...]]] = {"alike-leak": [], "alike-conflict": [], "alike": []}
    for first, second in pairs.tolist():
        pair = tuple(sorted((pictures[first], pictures[second]), key=_keeping))
        if pair[0].sha256 == pair[1].sha256:
            continue  # told as copies
        kind = "alike-leak" if pair[0].item.split != pair[1].item.split else "alike"
        found["alike-conflict" if pair[0].item.label != pair[1].item.label else kind].append(pair)
    concerned = len(np.unique(pairs))
    by_nature = concerned > _ALIKE_BY_NATURE * len(pictures)
    doubt = f"; {concerned:,} pictures have a look-alike, so likeness may be their nature" if by_nature else ""
    return [
        *_finding(
            WARNING,
            "alike-leak",
            found["alike-leak"],
            f"pairs between splits look alike (--quarantine-alike lists them){doubt}",
        ),
        *_finding(WARNING, "alike-conflict", found["alike-conflict"], f"pairs in different classes look alike{doubt}"),
        *_finding(NOTE, "alike", found["alike"], f"pairs within a class of a split look alike{doubt}"),
    ]


def to_leave_out(pictures: Sequence[Picture], alike: Iterable[tuple[Picture, ...]] = ()) -> dict[str, str]:
    """Says which pictures to leave out.

    Corrupt files; every copy of a picture that lies in several classes; of other copies all but one, the kept one being
    of the test split if there is one.

    Args:
        pictures: All pictures.
        alike: Pairs that look alike, the one to keep first; the others are left out too.

    Returns:
        `Item.key` → why.
    """
    reasons = {picture.item.key: f"corrupt: {picture.fault}" for picture in pictures if picture.fault}
    for group in same(pictures):
        if len({picture.item.label for picture in group}) > 1:
            keys = ", ".join(picture.item.key for picture in group)
            reasons |= {picture.item.key: f"in more than one class: {keys}" for picture in group}
        else:
            reasons |= {picture.item.key: f"the same as {group[0].item.key}" for picture in group[1:]}
    for kept, *others in alike:
        reasons |= {one.item.key: f"looks like {kept.item.key}" for one in others if one.item.key not in reasons}
    return reasons


def _keeping(picture: Picture) -> tuple[int, str]:
    return _KEPT_FIRST.index(picture.item.split), picture.item.key


def _finding(level: str, kind: str, groups: Sequence[tuple[Picture, ...]], meaning: str) -> list[Finding]:
    return [Finding(level, kind, f"{len(groups):,} {meaning}", len(groups), tuple(groups))] if groups else []
