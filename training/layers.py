"""Layers that train faster than Keras's own and are the same layers to whoever loads the weights.

    with training_build():  batch_norm(…) ─▶ one fused operation, forwards and backwards   ─┐ the same weights,
    otherwise:              batch_norm(…) ─▶ keras.layers.BatchNormalization, in every file ─┘ names and order

    with training_build():  conv(…) ─▶ kernels of small maps get their gradient by matrix products ─┐ likewise
    otherwise:              conv(…) ─▶ keras.layers.Conv2D                                          ─┘

Only the stock layer is ever saved as a model, so a file needs no code of ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import keras

from training import devices

_training: ContextVar[bool] = ContextVar("training_build", default=False)
_IMAGE_AXES: Final = 4  # n, h, w, c: what the fused operation takes
# AMX multiplies 32 bfloat16 values of a row at once, and oneDNN's gradient of a kernel takes a row of the map for it:
# of a map of 7 pixels three quarters of the work is padding. From 15 pixels on oneDNN is the faster one.
_NARROW_PX: Final = 8


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


def conv(filters: int, kernel_px: int, **settings: Any) -> Any:
    """Makes a convolution.

    Processors with AMX spend half of a step in bfloat16 on the gradients of the kernels, most of it where maps are
    small. By matrix products those take 30 instead of 48 ms (512 maps of 7 × 7, 224 to 224 channels) and 8 instead of
    26 ms (3 × 3) on two Granite Rapids cores. Elsewhere this is Keras's layer.

    Args:
        filters: How many.
        kernel_px: Side of the kernel.
        settings: Of `keras.layers.Conv2D`.
    """
    if _training.get() and keras.config.backend() == "tensorflow" and _amx():
        return Conv2D(filters, kernel_px, **settings)
    return keras.layers.Conv2D(filters, kernel_px, **settings)


def _amx() -> bool:
    """Tells whether TensorFlow computes on a processor that multiplies tiles of bfloat16."""
    import tensorflow as tf  # noqa: PLC0415 (this backend's only)

    return "amx_bf16" in devices.processor_flags() and not tf.config.get_visible_devices("GPU")


class Conv2D(keras.layers.Conv2D):  # type: ignore[misc]  # Keras is untyped
    """Keras's layer, whose kernel's gradient is a sum of matrix products where maps are narrow.

    The name is Keras's on purpose, as `BatchNormalization`'s.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves.

        Args:
            inputs: `[n, h, w, c]`.
            kernel: `[kh, kw, c, filters]`.
        """
        plain = {*self.strides, *self.dilation_rate, self.groups} == {1} and self.padding == "same"
        if not plain or self.compute_dtype != "bfloat16" or inputs.shape[2] > _NARROW_PX:
            return super().convolution_op(inputs, kernel)
        return _narrow_conv(inputs, keras.ops.cast(kernel, self.compute_dtype))


def _narrow_conv(maps: Any, kernel: Any) -> Any:
    import tensorflow as tf  # noqa: PLC0415 (this backend's only)

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def convolve(maps: Any, kernel: Any) -> tuple[Any, Any]:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            of_maps = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(maps), strides=1, padding="SAME")
            return of_maps, _kernel_gradient(maps, upstream, kernel.shape[:2])

        return tf.nn.conv2d(maps, kernel, strides=1, padding="SAME"), gradients

    return convolve(maps, kernel)


def _kernel_gradient(maps: Any, upstream: Any, kernel_px: tuple[int, int]) -> Any:
    """Computes ∂loss/∂kernel[y, x] = Σ over pictures and places of maps[place + (y, x)]ᵀ · upstream[place].

    Args:
        maps: What was convolved, `[n, h, w, c]`.
        upstream: The gradient of the result, `[n, h, w, filters]`.
        kernel_px: Height and width of the kernel.

    Returns:
        `[kh, kw, c, filters]`.
    """
    import tensorflow as tf  # noqa: PLC0415 (this backend's only)

    _, height, width, channels = maps.shape
    borders = [[(side - 1) // 2, side // 2] for side in kernel_px]  # as "same" has them
    padded = tf.pad(maps, [[0, 0], *borders, [0, 0]])
    towards = tf.reshape(upstream, [-1, upstream.shape[-1]])
    products = [
        tf.matmul(tf.reshape(padded[:, y : y + height, x : x + width], [-1, channels]), towards, transpose_a=True)
        for y in range(kernel_px[0])
        for x in range(kernel_px[1])
    ]
    return tf.reshape(tf.stack(products), [*kernel_px, channels, upstream.shape[-1]])


def _move(average: Any, value: Any, momentum: float) -> None:
    average.assign(average.value * momentum + value * (1 - momentum))
