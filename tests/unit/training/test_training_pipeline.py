"""Batches: every row once an epoch, a new order each, the same by seed and step; the model's waiting is measured."""

import time
from pathlib import Path
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


def feed(split: Any, *, augment: str = "none", seed: int = 1, **more: Any) -> Any:
    from training.augmentation import Augmentation  # noqa: PLC0415
    from training.pipeline import Feed  # noqa: PLC0415

    return Feed(split, 50, batch_size=16, augmentation=Augmentation.parse(augment), seed=seed, **more)


def arrays(batches: Any) -> tuple[np.ndarray, np.ndarray]:
    parts = list(batches.as_numpy_iterator())
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts]).argmax(axis=1)


def test_every_row_once_an_epoch_with_its_own_label(split: Any) -> None:
    made = feed(split)
    assert (made.steps, made.rows) == (4, 50)
    for epoch in range(3):
        rows, labels = arrays(made.batches(4 * epoch, 4 * epoch + 4))
        assert rows.dtype == np.uint8
        assert sorted(labels.tolist()) == list(range(50))
        assert np.array_equal(rows, split.rows[labels])


def test_every_epoch_has_a_new_order(split: Any) -> None:
    labels = arrays(feed(split).batches(0, 8))[1]
    assert not np.array_equal(labels[:50], labels[50:])


def test_seed_decides_order_and_augmentation(split: Any) -> None:
    first, again, other = (
        arrays(feed(split, augment="flip,crop,brightness,cutout,mixup", seed=seed).batches(0, 4)) for seed in (5, 5, 6)
    )
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_a_picture_is_mirrored_in_every_other_epoch(split: Any) -> None:
    made = feed(split, augment="flip")
    ways = []
    for epoch in range(4):
        rows, labels = arrays(made.batches(4 * epoch, 4 * epoch + 4))
        mirrored = (rows == split.rows[labels][:, :, ::-1]).all(axis=(1, 2, 3))
        ways.append(mirrored[np.argsort(labels)])
    assert 15 <= ways[0].sum() <= 35
    assert (ways[0] != ways[1]).all()
    assert (ways[0] == ways[2]).all()
    assert (ways[1] == ways[3]).all()


def test_begins_at_any_step_as_if_it_had_come_there(split: Any) -> None:
    made = feed(split, augment="flip,crop,rotate,zoom,brightness,cutout,mixup")
    whole = list(made.batches(0, 12).as_numpy_iterator())
    rest = list(made.batches(6, 12).as_numpy_iterator())
    for (rows, labels), (rows_again, labels_again) in zip(whole[6:], rest, strict=True):
        assert np.array_equal(rows, rows_again)
        assert np.array_equal(labels, labels_again)


def test_rows_between_steps(split: Any) -> None:
    made = feed(split)
    assert made.rows_between(0, 4) == made.rows_between(4, 8) == 50
    assert made.rows_between(3, 5) == 2 + 16


def test_smoothing_spreads_a_share_of_the_label(split: Any) -> None:
    _, labels = next(iter(feed(split, label_smoothing=0.1).batches(0, 1).as_numpy_iterator()))
    assert labels.shape == (16, 50)
    assert np.allclose(np.sort(labels, axis=1), [0.1 / 50] * 49 + [0.9 + 0.1 / 50])


def test_rows_of_a_file_are_read_as_they_are_needed(split: Any, tmp_path: Path) -> None:
    from training.data.loading import Split  # noqa: PLC0415

    mapped = np.memmap(tmp_path / "rows", dtype=np.uint8, mode="w+", shape=split.rows.shape)
    mapped[:] = split.rows
    on_disk = Split(mapped, split.labels, ())
    assert not on_disk.in_memory
    for expected, found in zip(arrays(feed(split).batches(0, 8)), arrays(feed(on_disk).batches(0, 8)), strict=True):
        assert np.array_equal(expected, found)


def test_waiting_is_the_models_not_the_pipelines(split: Any) -> None:
    made = feed(split)
    batches = iter(made.batches(0, 400))
    next(batches)
    time.sleep(0.05)  # the model is at work: some batches are made meanwhile
    before_s = made.waited_s
    for _ in range(2):
        next(batches)
    assert 0 < made.waited_s - before_s < 0.05


def test_waiting_is_counted_where_the_pipeline_is_slow(split: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf  # noqa: PLC0415

    from training.pipeline import Feed  # noqa: PLC0415

    made_at_once = Feed._batch

    def slow(self: Any, step: Any) -> Any:
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(0.05), [], [])]):
            return made_at_once(self, step)

    monkeypatch.setattr(Feed, "_batch", slow)
    made = feed(split)
    list(made.batches(0, 4))
    assert made.waited_s > 0.05


def test_nothing_is_measured_where_it_would_cost_the_threads(split: Any) -> None:
    made = feed(split, is_timed=False)
    assert len(arrays(made.batches(0, 4))[1]) == 50
    assert np.isnan(made.waited_s)


def test_validation_batches_are_in_order_and_unchanged(split: Any) -> None:
    from training import pipeline  # noqa: PLC0415

    rows, labels = arrays(pipeline.plain_batches(split, 50, batch_size=7))
    assert np.array_equal(rows, split.rows)
    assert labels.tolist() == list(range(50))
