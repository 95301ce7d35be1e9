"""Batches: every row once an epoch, a new order each, the same by seed; augmentation moves pixels and invents none."""

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import


@pytest.fixture
def split() -> Any:
    from training.data.loading import Split  # noqa: PLC0415

    random = np.random.default_rng(0)
    # The picture's corner tells its number, which is its label.
    rows = random.integers(0, 200, (50, 16, 8, 3), dtype=np.uint8)
    rows[:, 0, 0, 0] = np.arange(50)
    return Split(rows, np.arange(50), ())


def epoch(split: Any, *, augment: str = "none", seed: int = 1) -> Any:
    from training import pipeline  # noqa: PLC0415

    return pipeline.training_batches(split, batch_size=16, augment=augment, seed=seed)


def arrays(batches: Any) -> tuple[np.ndarray, np.ndarray]:
    parts = list(batches.as_numpy_iterator())
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])


def test_every_row_once_an_epoch_with_its_own_label(split: Any) -> None:
    rows, labels = arrays(epoch(split))
    assert rows.dtype == np.uint8
    assert sorted(labels.tolist()) == list(range(50))
    assert np.array_equal(rows, split.rows[labels])
    assert int(epoch(split).cardinality()) == 4


def test_every_epoch_has_a_new_order(split: Any) -> None:
    batches = epoch(split)
    first, second = arrays(batches)[1], arrays(batches)[1]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("augment", ["none", "crop", "flip-crop"])
def test_seed_decides_order_and_augmentation(split: Any, augment: str) -> None:
    first, again, other = (arrays(epoch(split, augment=augment, seed=seed)) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_every_epoch_is_augmented_anew(split: Any) -> None:
    batches = epoch(split, augment="crop")
    first, second = (
        [shift_of(row, split.rows[label], flip=False) for row, label in zip(*arrays(batches), strict=True)]
        for _ in range(2)
    )
    assert first != second  # by place in the epoch, whatever picture came there


def test_crop_shifts_whole_pixels_by_at_most_an_eighth(split: Any) -> None:
    rows, labels = arrays(epoch(split, augment="crop"))
    shifts = [shift_of(row, split.rows[label], flip=False) for row, label in zip(rows, labels, strict=True)]
    found = [shift for shift in shifts if shift is not None]
    assert len(found) == 50
    assert {down for down, _ in found} == {-2, -1, 0, 1, 2}
    assert {right for _, right in found} == {-1, 0, 1}


def test_flip_mirrors_about_half(split: Any) -> None:
    rows, labels = arrays(epoch(split, augment="flip-crop"))
    mirrored = 0
    for row, label in zip(rows, labels, strict=True):
        if shift_of(row, split.rows[label], flip=False) is None:
            assert shift_of(row, split.rows[label], flip=True) is not None
            mirrored += 1
    assert 10 <= mirrored <= 40


def test_validation_batches_are_in_order_and_unchanged(split: Any) -> None:
    from training import pipeline  # noqa: PLC0415

    rows, labels = arrays(pipeline.plain_batches(split, batch_size=7))
    assert np.array_equal(rows, split.rows)
    assert labels.tolist() == list(range(50))


def shift_of(row: np.ndarray, original: np.ndarray, *, flip: bool) -> tuple[int, int] | None:
    """Finds by how much a picture was shifted, by trying every shift."""
    source = original[:, ::-1] if flip else original
    padded = np.pad(source, ((2, 2), (1, 1), (0, 0)), mode="reflect")
    for top in range(5):
        for left in range(3):
            if np.array_equal(padded[top : top + 16, left : left + 8], row):
                return top - 2, left - 1
    return None
