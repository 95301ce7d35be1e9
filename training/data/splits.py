"""Stratified choices: a subset keeps every class's share."""

import numpy as np
from numpy.typing import NDArray


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
