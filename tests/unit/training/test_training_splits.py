"""Stratified choices."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splits import divided, parted, stratified_order

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=200).map(lambda values: np.array(values, dtype=np.int64))


@given(labels=LABELS, seed=st.integers(0, 2**32 - 1))
def test_order_is_a_permutation(labels: np.ndarray, seed: int) -> None:
    assert sorted(stratified_order(labels, seed).tolist()) == list(range(len(labels)))


@given(labels=LABELS, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_both_parts_keep_each_class_in_proportion(labels: np.ndarray, fraction: float, seed: int) -> None:
    first, second = parted(labels, fraction, seed)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(labels)))
    share = len(first) / len(labels)
    for label in np.unique(labels):
        expected = share * np.sum(labels == label)
        # Each class is within a row of its share, and classes may trade a row where shares are no whole numbers.
        assert abs(np.sum(labels[first] == label) - expected) <= 1.5


def test_equal_classes_are_split_exactly() -> None:
    labels = np.repeat(np.arange(10), 50)
    first, _ = parted(labels, 0.1, seed=3)
    assert np.bincount(labels[first]).tolist() == [5] * 10


def test_seed_decides() -> None:
    labels = np.repeat(np.arange(2), 100)
    assert np.array_equal(stratified_order(labels, 1), stratified_order(labels, 1))
    assert not np.array_equal(stratified_order(labels, 1), stratified_order(labels, 2))


@pytest.mark.parametrize("fraction", [1e-9, 0.001])
def test_first_part_is_never_empty(fraction: float) -> None:
    first, second = parted(np.zeros(10, dtype=np.int64), fraction, seed=0)
    assert (len(first), len(second)) == (1, 9)


HASHED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=200)


@given(rows=HASHED, seed=st.integers(0, 1000))
def test_divided_70_15_15_within_each_class_and_copies_stay_together(rows: list[tuple[int, int]], seed: int) -> None:
    labels, contents = np.array([label for label, _ in rows]), [f"{label}-{content}" for label, content in rows]
    where = dict(zip(contents, divided(labels, contents, seed), strict=True))
    assert divided(labels, contents, seed) == [where[content] for content in contents]
    for label in range(4):
        distinct = {content for content in contents if content.startswith(f"{label}-")}
        counts = Counter(where[content] for content in distinct)
        if distinct:
            expected = max(1, round(0.15 * len(distinct)))
            assert counts["test"] == expected
            assert counts["validation"] == min(expected, len(distinct) - expected)
            assert counts.total() == len(distinct)


def test_a_picture_more_moves_few_others() -> None:
    contents = [f"picture {number}" for number in range(1001)]
    labels = np.zeros(1001, dtype=np.int64)
    before, after = divided(labels[:-1], contents[:-1], 7), divided(labels, contents, 7)
    assert sum(one != other for one, other in zip(before, after, strict=False)) <= 2
    assert before != divided(labels[:-1], contents[:-1], 8)
    assert Counter(before) == {"train": 700, "validation": 150, "test": 150}


def test_the_division_is_the_same_for_ever() -> None:
    labels = np.repeat([0, 1], 10)
    splits = divided(labels, [f"picture {number}" for number in range(20)], 0)
    assert "".join(split[1] for split in splits) == "rrrrerareaarrrearerr"
