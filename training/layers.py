"""Layers that train faster than Keras's own and are the same layers to whoever loads the weights.

    with training_build():  batch_norm(…) ─▶ one fused operation, forwards and backwards   ─┐ the same weights,
    otherwise:              batch_norm(…) ─▶ keras.layers.BatchNormalization, in every file ─┘ names and order

Only the stock layer is ever saved as a model, so a file needs no code of ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import keras

_training: ContextVar[bool] = ContextVar("training_build", default=False)
_IMAGE_AXES: Final = 4  # n, h, w, c: what the fused operation takes


@contextmanager
def training_build() -> Iterator[None]:
    """Layers made inside are made for a training step; their weights load into the layers made outside."""
    token = _training.set(True)
    try:
        yield
    finally:
        _training.reset(token)


def batch_norm(**settings: Any) -> Any:
    """Makes a batch normalisation.

    Keras normalises by separate means, subtractions and multiplications, each a pass over memory. TensorFlow has them
    as one operation, and another for the gradient, in bfloat16 too: on two Granite Rapids cores a wide CNN trains at
    1,236 instead of 840 images/s with it. Other backends fuse by themselves and get Keras's layer.

    Args:
        settings: Of `keras.layers.BatchNormalization`.
    """
    if _training.get() and keras.config.backend() == "tensorflow":
        return BatchNormalization(**settings)
    return keras.layers.BatchNormalization(**settings)


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
    """Keras's layer by TensorFlow's fused operation.

    The name is Keras's on purpose: `.weights.h5` files address a layer by its class's name.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: FBT001 (Keras's signature)
        """Normalises.

        Args:
            inputs: `[n, h, w, c]`; anything else goes Keras's way.
            training: Whether to normalise by the batch and to move the averages.
            mask: Which positions count; a masked input goes Keras's way.
        """
        if len(inputs.shape) != _IMAGE_AXES or self.axis not in (-1, 3) or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        if training and self.trainable:
            return self._by_batch(inputs)
        return self._fused(inputs, self.moving_mean.value, self.moving_variance.value, is_training=False)[0]

    def _by_batch(self, inputs: Any) -> Any:
        import tensorflow as tf  # noqa: PLC0415 (this backend's only)

        normal, mean, variance, *_ = self._fused(inputs, [], [], is_training=True)
        # The operation answers the unbiased variance, n / (n − 1) times the one it divides by and Keras averages.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        _move(self.moving_mean, mean, self.momentum)
        _move(self.moving_variance, variance * (count - 1) / count, self.momentum)
        return normal

    def _fused(self, inputs: Any, mean: Any, variance: Any, *, is_training: bool) -> Any:
        import tensorflow as tf  # noqa: PLC0415 (this backend's only)

        channels = inputs.shape[-1]
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else tf.ones([channels]),
            offset=self.beta.value if self.center else tf.zeros([channels]),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )


def _move(average: Any, value: Any, momentum: float) -> None:
    average.assign(average.value * momentum + value * (1 - momentum))
