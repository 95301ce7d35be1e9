"""Augmentation of whole batches, as TensorFlow operations inside the input pipeline.

    uint8[b, h, w, c] ──one affine map a picture: flip, crop, rotate, zoom──▶ brightness ─▶ cutout ─▶ mixup ──▶ uint8

Keras has a layer for each (`RandomFlip`, `RandomTranslation`, …). They need float32 pixels and one pass each: on a
Granite Rapids core 512 pictures of 32 × 32 cost 8 ms to flip and 25 ms to shift, against 13 ms for both in one map of
bytes. Every number drawn is a function of the seed alone, so a step can be repeated.
"""

import math
from typing import Any, Final

import tensorflow as tf

from training.augmentation import Augmentation, pixels

_FULL: Final = 255.0
# Named, because the operation that chooses by device counts as stateful: deterministic programs would map in a thread.
_GENERATOR: Final = "philox"


def alternating(numbers: Any, epoch: Any, *, rows: int, seed: int) -> Any:
    """Says which pictures are mirrored in an epoch: each in every other one.

    So all pictures are seen both ways in two epochs, where a coin thrown anew each time shows half of them twice the
    same (Jordan, 2024, arXiv:2404.00498, section 3.6).

    Args:
        numbers: Of the rows, `int64[b]`.
        epoch: From 0.
        rows: Of the whole split.
        seed: Decides who is mirrored in the first epoch.

    Returns:
        `bool[b]`.
    """
    # The parities of a permutation: as good as a coin, and the same for a picture in every epoch.
    coin = tf.random.experimental.index_shuffle(numbers, seed=tf.constant([seed, 1], tf.int64), max_index=rows - 1)
    return (coin + epoch) % 2 == 0


def augmented(rows: Any, labels: Any, augmentation: Augmentation, seed: Any, flips: Any = None) -> tuple[Any, Any]:
    """Alters a batch.

    Args:
        rows: `uint8[b, h, w, c]`; h, w and c are known.
        labels: Shares of each class, `float32[b, classes]`.
        augmentation: What to do, and how much.
        seed: `int64[2]`; the same seed does the same.
        flips: Which rows to mirror, `bool[b]`; drawn, if not given.

    Returns:
        Rows and labels of the same shapes and types.
    """
    if augmentation.flip or augmentation.crop or augmentation.rotate or augmentation.zoom:
        rows = _mapped(rows, augmentation, seed, flips)
    if augmentation.brightness:
        rows = _lit(rows, augmentation.brightness, _fold(seed, 10))
    if augmentation.cutout:
        rows = _cut_out(rows, augmentation.cutout, _fold(seed, 20))
    return _mixed(rows, labels, augmentation.mixup, _fold(seed, 30)) if augmentation.mixup else (rows, labels)


def _mapped(rows: Any, augmentation: Augmentation, seed: Any, flips: Any) -> Any:
    # Whole pixels stay whole: only a turn or a change of size needs values between pixels.
    exact = not (augmentation.rotate or augmentation.zoom)
    if flips is None:
        flips = _uniform(tf.shape(rows)[:1], 0.0, 1.0, _fold(seed, 1)) < augmentation.flip
    _, height, width, _ = rows.shape
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=rows,
        transforms=_maps(flips, (height, width), augmentation, seed),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="NEAREST" if exact else "BILINEAR",
        fill_mode="REFLECT",
    )


def _maps(flips: Any, size_px: tuple[int, int], augmentation: Augmentation, seed: Any) -> Any:
    """Draws a map for each picture, from a place in the result to the place in the source that it shows.

    Returns:
        `float32[b, 8]`: a₀ a₁ a₂ b₀ b₁ b₂ 0 0 for x = a₀x′ + a₁y′ + a₂ and y = b₀x′ + b₁y′ + b₂.
    """
    height, width = size_px
    count = tf.shape(flips)
    mirror = 1 - 2 * tf.cast(flips, tf.float32)
    angle = _uniform(count, -augmentation.rotate, augmentation.rotate, _fold(seed, 2)) * (math.pi / 180)
    scale = 1 + _uniform(count, -augmentation.zoom, augmentation.zoom, _fold(seed, 3))
    right, down = _shift(count, augmentation.crop, width, seed, 4), _shift(count, augmentation.crop, height, seed, 5)
    along, across = scale * tf.cos(angle), scale * tf.sin(angle)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x_of = (mirror * along, -across)
    y_of = (mirror * across, along)
    x_0 = middle_x - x_of[0] * middle_x - x_of[1] * middle_y + right
    y_0 = middle_y - y_of[0] * middle_x - y_of[1] * middle_y + down
    zero = tf.zeros(count)
    return tf.stack([*x_of, x_0, *y_of, y_0, zero, zero], axis=1)


def _shift(count: Any, strength: float, side_px: int, seed: Any, salt: int) -> Any:
    if not strength:
        return tf.zeros(count)
    most = pixels(strength, side_px)
    return tf.floor(_uniform(count, -most, most + 1, _fold(seed, salt)))


def _lit(rows: Any, strength: float, seed: Any) -> Any:
    lighter = _uniform(tf.shape(rows)[:1], -strength * _FULL, strength * _FULL, seed)
    return _bytes(tf.cast(rows, tf.float32) + lighter[:, None, None, None])


def _cut_out(rows: Any, strength: float, seed: Any) -> Any:
    _, height, width, _ = rows.shape
    side = pixels(strength, min(height, width))
    count = tf.shape(rows)[:1]
    hidden_rows = _stretch(count, side, height, _fold(seed, 1))
    hidden_columns = _stretch(count, side, width, _fold(seed, 2))
    hidden = hidden_rows[:, :, None, None] & hidden_columns[:, None, :, None]
    mean = tf.reduce_mean(tf.cast(rows, tf.float32), axis=[0, 1, 2])
    return tf.where(hidden, _bytes(mean), rows)


def _stretch(count: Any, length: int, side_px: int, seed: Any) -> Any:
    """Marks `length` places of a side for each picture; near an edge a part of them lies outside, as in the paper."""
    middle = tf.cast(_uniform(count, 0.0, side_px, seed), tf.int32)
    start = (middle - length // 2)[:, None]
    places = tf.range(side_px)[None]
    return (places >= start) & (places < start + length)


def _mixed(rows: Any, labels: Any, alpha: float, seed: Any) -> tuple[Any, Any]:
    """Mixes each picture with the one at the batch's other end; the rows are shuffled already."""
    count = tf.shape(rows)[:1]
    # Beta(α, α) of two Gamma(α).
    first, second = (tf.random.stateless_gamma(count, _fold(seed, salt), alpha) for salt in (1, 2))
    share = tf.math.divide_no_nan(first, first + second)
    weight = share[:, None, None, None]
    pictures = tf.cast(rows, tf.float32)
    mixed = weight * pictures + (1 - weight) * tf.reverse(pictures, axis=[0])
    return _bytes(mixed), share[:, None] * labels + (1 - share[:, None]) * tf.reverse(labels, axis=[0])


def _bytes(values: Any) -> Any:
    return tf.cast(tf.clip_by_value(tf.round(values), 0.0, _FULL), tf.uint8)


def _uniform(count: Any, low: float, high: float, seed: Any) -> Any:
    return tf.random.stateless_uniform(count, seed, minval=low, maxval=high, alg=_GENERATOR)


def _fold(seed: Any, salt: int) -> Any:
    return tf.random.experimental.stateless_fold_in(seed, salt, alg=_GENERATOR)
