"""Augmentation: its words, and what each does to pixels and labels."""

from typing import Any

import numpy as np
import pytest

from training.augmentation import Augmentation


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("none", "none"),
        ("flip", "flip=0.5"),
        ("cutout=8, flip", "flip=0.5,cutout=8"),
        ("crop=0.25,rotate=15,mixup=0.4", "crop=0.25,rotate=15,mixup=0.4"),
    ],
)
def test_words_and_back(text: str, written: str) -> None:
    assert str(Augmentation.parse(text)) == written
    assert Augmentation.parse(written) == Augmentation.parse(text)


@pytest.mark.parametrize(
    "text", ["", "blur", "flip,flip", "flip=", "flip=2", "crop=0", "zoom=-1", "mixup=nan", "none,flip"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Augmentation.parse(text)


@pytest.fixture(scope="module")
def rows() -> Any:
    return np.random.default_rng(0).integers(0, 256, (200, 16, 8, 3), dtype=np.uint8)


def altered(rows: Any, augment: str, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf  # noqa: PLC0415 (slow to import)

    from training.transforms import augmented  # noqa: PLC0415

    seed = tf.constant([1, 2], tf.int64)
    labels = np.eye(len(rows), dtype=np.float32) if labels is None else labels
    made, shares = augmented(tf.constant(rows), tf.constant(labels), Augmentation.parse(augment), seed)
    assert (made.dtype, made.shape, shares.shape) == (tf.uint8, rows.shape, labels.shape)
    return made.numpy(), shares.numpy()


def shift_of(row: np.ndarray, source: np.ndarray) -> tuple[int, int] | None:
    """Finds by how much a picture was shifted, by trying every shift."""
    padded = np.pad(source, ((2, 2), (1, 1), (0, 0)), mode="symmetric")
    for top in range(5):
        for left in range(3):
            if np.array_equal(padded[top : top + 16, left : left + 8], row):
                return top - 2, left - 1
    return None


@pytest.mark.slow
def test_crop_shifts_whole_pixels_by_at_most_an_eighth(rows: Any) -> None:
    found = [shift_of(made, row) for made, row in zip(altered(rows, "crop")[0], rows, strict=True)]
    assert None not in found
    assert {shift[0] for shift in found if shift} == {-2, -1, 0, 1, 2}
    assert {shift[1] for shift in found if shift} == {-1, 0, 1}


@pytest.mark.slow
def test_flip_mirrors_about_half(rows: Any) -> None:
    made, _ = altered(rows, "flip")
    mirrored = [np.array_equal(new, row[:, ::-1]) for new, row in zip(made, rows, strict=True)]
    kept = [np.array_equal(new, row) for new, row in zip(made, rows, strict=True)]
    assert sum(mirrored) + sum(kept) == 200
    assert 70 <= sum(mirrored) <= 130
    assert np.array_equal(altered(rows, "flip=1")[0], rows[:, :, ::-1])


@pytest.mark.slow
def test_flip_and_crop_go_together(rows: Any) -> None:
    for made, row in zip(altered(rows, "flip=1,crop")[0], rows, strict=True):
        assert shift_of(made, row[:, ::-1]) is not None


@pytest.mark.slow
def test_rotation_turns_about_the_middle_up_to_its_angle() -> None:
    # A bright spot off the middle moves along a circle, and stays within the angle.
    picture = np.zeros((100, 17, 17, 1), np.uint8)
    picture[:, 7:10, 11:14] = 255
    made, _ = altered(picture, "rotate=45")
    weights = made[..., 0] / made.sum(axis=(1, 2), dtype=float)[:, None]
    down = (weights * np.arange(17)[None, :, None]).sum(axis=(1, 2)) - 8
    right = (weights * np.arange(17)[None, None, :]).sum(axis=(1, 2)) - 8
    degrees = np.degrees(np.arctan2(down, right))
    assert np.allclose(np.hypot(down, right), 4, atol=0.5)
    assert -47 < degrees.min() < -35
    assert 35 < degrees.max() < 47


@pytest.mark.slow
def test_zoom_changes_sizes_both_ways() -> None:
    picture = np.zeros((100, 33, 33, 1), np.uint8)
    picture[:, 12:21, 12:21] = 255
    sides = np.sqrt(altered(picture, "zoom=0.3")[0].sum(axis=(1, 2, 3)) / 255)
    assert 6.5 < sides.min() < 7.5
    assert 11.5 < sides.max() < 13.5


@pytest.mark.slow
def test_brightness_moves_all_pixels_of_a_picture_alike() -> None:
    made, _ = altered(np.full((100, 4, 4, 3), 128, np.uint8), "brightness=0.2")
    assert (made == made[:, :1, :1, :1]).all()
    assert 77 <= made.min() < 90
    assert 166 < made.max() <= 179


@pytest.mark.slow
def test_brightness_stops_at_black_and_white() -> None:
    assert set(np.unique(altered(np.full((50, 2, 2, 1), 255, np.uint8), "brightness=1")[0])) > {255}
    assert altered(np.full((50, 2, 2, 1), 250, np.uint8), "brightness=1")[0].max() == 255


@pytest.mark.slow
def test_cutout_hides_a_square_of_the_mean_colour(rows: Any) -> None:
    made, _ = altered(rows, "cutout=4")
    mean = np.round(rows.mean(axis=(0, 1, 2)))
    for new, row in zip(made, rows, strict=True):
        hidden = (new != row).any(axis=2)
        assert (new[hidden] == mean).all()
        down, right = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
        assert np.ptp(down) < 4
        assert np.ptp(right) < 4
    assert max((new != row).any(axis=2).sum() for new, row in zip(made, rows, strict=True)) == 16


@pytest.mark.slow
def test_mixup_mixes_pictures_and_labels_by_the_same_share(rows: Any) -> None:
    made, shares = altered(rows, "mixup=0.4")
    share = np.diag(shares)
    assert np.allclose(np.diag(shares[:, ::-1]), 1 - share)
    assert np.allclose(shares.sum(axis=1), 1)
    weight = share[:, None, None, None]
    assert np.abs(made - (weight * rows + (1 - weight) * rows[::-1])).max() <= 0.51
    assert share.min() < 0.05
    assert share.max() > 0.95
    assert 0.4 < share.mean() < 0.6
