"""Arrays become batches: shuffled, gathered, augmented, some batches ahead of the model.

    step number ──▶ row numbers ──gather──▶ uint8[b, h, w, c] ──augment──▶ prefetch ──▶ model
                    (a permutation per epoch)                                └ clock: how long the model waited

A batch is a function of its step's number and the seed alone. So training can begin at any step, in the middle of an
epoch too, and meets the same batches; threads change nothing; and a shuffle costs no buffer. The pixels stay uint8
until the model's own first layer, a quarter of float32's memory traffic.
"""

import math
import time
from typing import Any

import tensorflow as tf

from training.augmentation import USUAL, Augmentation
from training.data.loading import Split
from training.transforms import alternating, augmented


class Feed:
    """The batches of one training.

    Args:
        split: The rows to learn from.
        classes: How many there are.
        batch_size: Rows in a batch; the last one of an epoch may have fewer.
        augmentation: What is done to each picture, anew in every epoch.
        label_smoothing: Share of each label that is spread over all classes.
        seed: The same seed gives the same batches.
        is_timed: Whether to measure how long the model waits. It needs calls into Python, for which TensorFlow makes a
            deterministic program's pipeline synchronous; and several devices fetch ahead, so the wait is not theirs.
    """

    def __init__(
        self,
        split: Split,
        classes: int,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        is_timed: bool = True,
    ) -> None:
        self.rows = len(split.labels)
        self.steps = -(-self.rows // batch_size)
        self._batch_size = batch_size
        self._augmentation = augmentation or Augmentation()
        self._smoothing = label_smoothing
        self._seed = seed
        self._gather = _gathering(split, classes)
        self._asked_s = 0.0
        self.waited_s = 0.0 if is_timed else math.nan  # so long has the model waited for batches

    def rows_between(self, first_step: int, last_step: int) -> int:
        """Counts the rows of the steps from the first up to, not including, the last."""

        def before(step: int) -> int:
            epoch, within = divmod(step, self.steps)
            return epoch * self.rows + min(within * self._batch_size, self.rows)

        return before(last_step) - before(first_step)

    def batches(self, first_step: int, last_step: int) -> Any:
        """Makes the batches of steps, counted from 0 over all epochs.

        Args:
            first_step: The first one.
            last_step: The one after the last.

        Returns:
            A `tf.data.Dataset` of `(uint8[b, h, w, c], float32[b, classes])`.
        """
        steps = tf.data.Dataset.range(first_step, last_step)
        made = steps.map(self._batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        if math.isnan(self.waited_s):
            return made
        # The three are asked one after the other. tf.timestamp refuses to work in deterministic programs.
        before = steps.map(lambda _: tf.numpy_function(self._ask, [], tf.float64))
        after = steps.map(lambda _: tf.numpy_function(self._receive, [], tf.float64))
        timed = tf.data.Dataset.zip(before, made, after).map(lambda _, batch, __: batch)
        return timed.with_options(_as_written())

    def _batch(self, step: Any) -> tuple[Any, Any]:
        epoch, within = step // self.steps, step % self.steps
        start = within * self._batch_size
        places = tf.range(start, tf.minimum(start + self._batch_size, self.rows))
        order = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        numbers = tf.random.experimental.index_shuffle(places, seed=order, max_index=self.rows - 1)
        rows, labels = self._gather(numbers)
        labels = labels * (1 - self._smoothing) + self._smoothing / labels.shape[1]
        flips = None
        if self._augmentation.flip == USUAL["flip"]:
            flips = alternating(numbers, epoch, rows=self.rows, seed=self._seed)
        return augmented(rows, labels, self._augmentation, tf.stack([tf.constant(self._seed, tf.int64), step]), flips)

    def _ask(self) -> float:
        self._asked_s = time.perf_counter()
        return self._asked_s

    def _receive(self) -> float:
        self.waited_s += time.perf_counter() - self._asked_s
        return self.waited_s


def plain_batches(split: Split, classes: int, *, batch_size: int) -> Any:
    """Makes batches in order, unchanged, for validation.

    Args:
        split: The rows.
        classes: How many there are.
        batch_size: Rows in a batch; the last one may have fewer.

    Returns:
        A `tf.data.Dataset` of `(uint8[b, h, w, c], float32[b, classes])`.
    """
    gathered = tf.data.Dataset.range(len(split.labels)).batch(batch_size).map(_gathering(split, classes))
    return gathered.prefetch(tf.data.AUTOTUNE)


def _gathering(split: Split, classes: int) -> Any:
    """Makes a function from row numbers `int64[b]` to rows and one-hot labels."""
    with tf.device("CPU"):  # the whole data set has no business in a GPU's memory
        labels = tf.constant(split.labels)
        rows = tf.constant(split.rows) if split.in_memory else None

    def read(numbers: Any) -> Any:
        # Sorted, so that a file is read forwards.
        order = numbers.argsort()
        found = split.rows[numbers[order]]
        return found[order.argsort()]

    def gather(numbers: Any) -> tuple[Any, Any]:
        if rows is not None:
            found = tf.gather(rows, numbers)
        else:
            found = tf.numpy_function(read, [numbers], tf.uint8, stateful=False)
            found = tf.ensure_shape(found, (None, *split.rows.shape[1:]))
        return found, tf.one_hot(tf.gather(labels, numbers), classes)

    return gather


def _as_written() -> Any:
    """Options that keep the clocks where they are: nothing is made parallel or prefetched behind them."""
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    options.experimental_optimization.map_parallelization = False
    options.deterministic = True
    return options
