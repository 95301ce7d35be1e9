"""Quantization-aware fine-tuning: the network learns to answer as before with 8 bits.

    Keras model ──its own answers to the calibration rows──▶ what to learn
        │ clone: each layer that becomes int8 has its input rounded to 256 values, its kernel to 255 a channel
        ▼
    fine-tuned for a few epochs ──weights back into the plain model──▶ converted, quantized and gated as any other

Rounding has no slope, so its gradient is taken as 1 (Bengio et al. 2013, arXiv:1308.3432). A step is the largest value
divided by the number of steps, and keeps its own gradient: what stretches a range and is not worth it shrinks, as with
learned step sizes (Esser et al. 2020, arXiv:1902.08153). Neither labels nor hold-out rows are looked at: the teacher is
the model itself (Hinton et al. 2015, arXiv:1503.02531). Batch normalisation keeps its statistics.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export import convert, processor
from export.quiet import noisy_library

BATCH_ROWS: Final = 50
_SEED: Final = 0
_STEPS: Final = 255
_TINY: Final = 1e-9


def fine_tune(model: Any, rows: NDArray[np.uint8], *, epochs: int, learning_rate: float) -> Any:
    """Fine-tunes a copy of a model under the rounding of int8.

    Args:
        model: A float32 Keras model of pixels; it is not changed.
        rows: `uint8[n, h, w, c]` of the calibration rows.
        epochs: Passes over them.
        learning_rate: Of Adam at the start; it falls to zero by a cosine.

    Returns:
        A model of the same layers with other weights.
    """
    teacher = convert.predict(model, rows)
    with noisy_library():
        import keras  # noqa: PLC0415 - seconds to import

        plain = keras.Model(model.inputs, model.outputs)  # a Sequential model has calls to intercept only as this
        tuned = keras.models.clone_model(plain, clone_function=_copy_layer, call_function=_call_rounded)
        _copy_weights(plain, tuned)
        batches = max(1, len(rows) // BATCH_ROWS)
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * batches)
        step = _make_step(tuned, keras.optimizers.Adam(schedule))
        order = np.random.default_rng(_SEED)
        for _ in range(epochs):
            for chosen in np.array_split(order.permutation(len(rows)), batches):
                step(rows[chosen].astype(np.float32), teacher[chosen])
        result = keras.models.clone_model(plain, clone_function=_copy_layer)
        _copy_weights(tuned, result)
    return result


def _copy_layer(layer: Any) -> Any:
    return layer.__class__.from_config(layer.get_config())


def _copy_weights(source: Any, target: Any) -> None:
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def _is_quantized(layer: Any) -> bool:
    import keras  # noqa: PLC0415 - seconds to import

    return isinstance(layer, keras.layers.Conv2D | keras.layers.Dense | keras.layers.DepthwiseConv2D)


def _call_rounded(layer: Any, *given: Any, **named: Any) -> Any:
    import keras  # noqa: PLC0415 - seconds to import

    if _is_quantized(layer):
        return layer(_rounding()(given[0]), *given[1:], **named)
    if isinstance(layer, keras.layers.Add):
        return layer([_rounding()(value) for value in given[0]], **named)
    return layer(*given, **named)


def _inside_a_channel(layer: Any) -> list[int]:
    # A kernel's axes but the last, which counts output channels; of a depthwise one the last two count them.
    import keras  # noqa: PLC0415 - seconds to import

    channel_axes = 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else 1
    return list(range(len(layer.kernel.shape) - channel_axes))


def _rounding() -> Any:
    import keras  # noqa: PLC0415 - seconds to import

    class Rounding(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
        """A value as uint8 can hold it, in the range of its own batch."""

        def call(self, values: Any) -> Any:
            return _round_values(values)

    return Rounding()


def _round_values(values: Any) -> Any:
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    low, high = tf.minimum(tf.reduce_min(values), 0.0), tf.maximum(tf.reduce_max(values), 0.0)
    scale = tf.maximum((high - low) / _STEPS, _TINY)
    zero_point = tf.stop_gradient(tf.round(-low / scale))
    return (tf.clip_by_value(_round(values / scale) + zero_point, 0.0, float(_STEPS)) - zero_point) * scale


def _round_kernel(kernel: Any, axes: list[int]) -> Any:
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    largest = tf.reduce_max(tf.abs(kernel), axes, keepdims=True)
    scale = tf.maximum(largest / processor.weight_steps(), _TINY)
    return _round(kernel / scale) * scale


def _round(values: Any) -> Any:
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    return values + tf.stop_gradient(tf.round(values) - values)


def _make_step(model: Any, optimizer: Any) -> Any:
    import keras  # noqa: PLC0415 - seconds to import
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    variables, fixed = model.trainable_variables, model.non_trainable_variables
    axes = {id(layer.kernel): _inside_a_channel(layer) for layer in model.layers if _is_quantized(layer)}
    optimizer.build(variables)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def step(pixels: Any, wanted: Any) -> None:
        with tf.GradientTape() as tape:
            values = [
                _round_kernel(one.value, axes[id(one)]) if id(one) in axes else tf.convert_to_tensor(one.value)
                for one in variables
            ]
            answers, _ = model.stateless_call(values, [one.value for one in fixed], pixels, training=False)
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(wanted, answers))
        optimizer.apply(tape.gradient(loss, [one.value for one in variables]), variables)

    return step
