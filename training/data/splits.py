"""Stratified choices: a subset keeps every class's share."""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHARES: Final = {"test": 0.15, "validation": 0.15, "train": 0.70}


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Orders rows at random such that every prefix holds every class in proportion.

    Each class is shuffled and spread evenly over 0..1; sorting all rows by that position mixes the classes.

    Args:
        labels: `int64[n]`.
        seed: The same seed gives the same order.

    Returns:
        A permutation of the row numbers, `int64[n]`.
    """
    random = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[members] = (random.permutation(len(members)) + 0.5) / len(members)
    return np.lexsort((random.random(len(labels)), position)).astype(np.int64)


def parted(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides rows in two, stratified.

    Args:
        labels: `int64[n]`.
        fraction: The first part's share; at least one row.
        seed: The same seed gives the same parts.

    Returns:
        The row numbers of both parts, each in rising order.
    """
    order = stratified_order(labels, seed)
    first = max(1, round(len(labels) * fraction))
    return np.sort(order[:first]), np.sort(order[first:])


def divided(labels: NDArray[np.int64], hashes: Sequence[str], seed: int) -> list[str]:
    """Divides rows 70/15/15 into train, validation and test, each class by itself.

    A class is ordered by a hash of the seed and the picture's contents, and cut. So a picture that is added later
    leaves nearly all others where they were, names do not matter, and copies of one picture stay together.

    Args:
        labels: `int64[n]`.
        hashes: Each row's contents, hashed.
        seed: The same seed gives the same splits, with any version of any library.

    Returns:
        The name of each row's split. A class of at least three different pictures has one in every split.
    """
    splits = ["train"] * len(hashes)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda row: _order(seed, hashes[row]))
        distinct = list(dict.fromkeys(hashes[row] for row in members))
        tested = max(1, round(len(distinct) * SHARES["test"]))
        validated = max(1, round(len(distinct) * SHARES["validation"]))
        part = dict.fromkeys(distinct[:tested], "test")
        part |= dict.fromkeys(distinct[tested : tested + validated], "validation")
        for row in members:
            splits[row] = part.get(hashes[row], "train")
    return splits


def _order(seed: int, content: str) -> bytes:
    return hashlib.sha256(f"{seed} {content}".encode()).digest()
