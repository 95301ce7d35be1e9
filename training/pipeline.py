"""Arrays become batches: shuffled, gathered, augmented, one batch ahead of the model.

    row numbers ──shuffle──▶ batch ──gather──▶ uint8[b, h, w, c] ──augment──▶ prefetch ──▶ model

Row numbers are shuffled, not pictures: every epoch is a true permutation and costs no buffer. The pixels stay uint8
until the model's own first layer, a quarter of float32's memory traffic.
"""

from typing import Any, Final

import tensorflow as tf

from training.data.loading import Split

# Share of a side that a picture may be shifted by, as in the common recipe for CIFAR-10: 4 of 32 pixels.
_SHIFT: Final = 1 / 8


def training_batches(split: Split, *, batch_size: int, augment: str, seed: int) -> Any:
    """Makes one epoch's batches, in a new order and augmented anew each time it is iterated.

    Args:
        split: The rows to learn from.
        batch_size: Rows in a batch; the last one of an epoch may have fewer.
        augment: "none", "crop" or "flip-crop".
        seed: The same seed gives the same batches.

    Returns:
        A `tf.data.Dataset` of `(uint8[b, h, w, c], int64[b])`.
    """
    rows, labels = tf.constant(split.rows), tf.constant(split.labels)
    numbers = tf.data.Dataset.range(len(split.labels)).shuffle(len(split.labels), seed=seed).batch(batch_size)
    # Seeds travel beside the batches, because a stateful random operation in a parallel map depends on thread timing.
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)

    def gather(indices: Any, pair: Any) -> tuple[Any, Any]:
        return _augmented(tf.gather(rows, indices), augment, pair), tf.gather(labels, indices)

    batches = tf.data.Dataset.zip(numbers, seeds).map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def plain_batches(split: Split, *, batch_size: int) -> Any:
    """Makes batches in order, unchanged, for validation."""
    rows, labels = tf.constant(split.rows), tf.constant(split.labels)
    numbers = tf.data.Dataset.range(len(split.labels)).batch(batch_size)
    gathered = numbers.map(lambda indices: (tf.gather(rows, indices), tf.gather(labels, indices)))
    return gathered.prefetch(tf.data.AUTOTUNE)


def _augmented(rows: Any, augment: str, seed: Any) -> Any:
    if augment == "flip-crop":
        rows = _flipped(rows, seed)
    return rows if augment == "none" else _shifted(rows, seed)


def _flipped(rows: Any, seed: Any) -> Any:
    """Mirrors about half of the pictures."""
    chosen = tf.random.stateless_uniform(tf.shape(rows)[:1], seed=seed) < 0.5  # noqa: PLR2004 (a half)
    return tf.where(chosen[:, None, None, None], tf.reverse(rows, axis=[2]), rows)


def _shifted(rows: Any, seed: Any) -> Any:
    """Shifts each picture by its own whole number of pixels; what comes in from outside is its mirrored edge."""
    _, height, width, _ = rows.shape
    down, right = max(1, round(height * _SHIFT)), max(1, round(width * _SHIFT))
    padded = tf.pad(rows, [[0, 0], [down, down], [right, right], [0, 0]], mode="REFLECT")
    count = tf.shape(rows)[:1]
    tops = tf.random.stateless_uniform(count, seed=seed + 1, maxval=2 * down + 1, dtype=tf.int64)
    lefts = tf.random.stateless_uniform(count, seed=seed + 2, maxval=2 * right + 1, dtype=tf.int64)
    picked = tf.gather(padded, tops[:, None] + tf.range(height, dtype=tf.int64), axis=1, batch_dims=1)
    return tf.gather(picked, lefts[:, None] + tf.range(width, dtype=tf.int64), axis=2, batch_dims=1)
