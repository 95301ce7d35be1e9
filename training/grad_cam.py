"""Grad-CAM and feature maps: what a model's convolutions saw in a picture.

    picture ──model──▶ score of a class ──gradient──▶ a convolution's maps ──weighted sum, ReLU──▶ heat map

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
The layers are watched while the model runs, so it may be nested (a backbone inside) or somebody's own.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.errors import TrainingError
from training.model_layers import flat_layers, observed

SHOWN_LAYERS: Final = 16

_FOLLOWERS: Final = (
    keras.layers.BatchNormalization,
    keras.layers.Add,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
)
_MAPS_RANK: Final = 4  # n, height, width, channels
_SMALLEST_PROBABILITY: Final = 1e-30


def grad_cam(model: Any, rows: NDArray[np.uint8], classes: NDArray[np.int64], layer: Any) -> NDArray[np.float32]:
    """Computes where in each picture the evidence for a class lies: Selvaraju et al. 2017, equations 1 and 2.

    Args:
        model: From pixels to probabilities.
        rows: `uint8[n, h, w, c]`.
        classes: The class to explain in each row, `int64[n]`.
        layer: A layer of the model that gives maps `[n, h', w', k]`.

    Returns:
        `float32[n, h', w']`, 0..1: 1 is the strongest evidence in that picture.

    Raises:
        TrainingError: The layer gives no maps, the score does not depend on them, or the backend is not TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise TrainingError(
            f"expected the TensorFlow backend for Grad-CAM, received {keras.config.backend()}; unset KERAS_BACKEND"
        )
    seen: dict[str, Any] = {}
    with tf.GradientTape() as tape, ExitStack() as watch:

        def observe(_: Any, maps: Any) -> None:
            tape.watch(maps)
            seen["maps"] = maps

        watch.enter_context(observed(layer, observe))
        logits = watch.enter_context(_scores(model))
        probabilities = model(rows, training=False)
        scores = logits.get("scores", tf.math.log(tf.maximum(probabilities, _SMALLEST_PROBABILITY)))
        chosen = tf.gather(scores, tf.constant(classes), axis=1, batch_dims=1)
    _check_maps(layer, seen["maps"])
    gradient = tape.gradient(chosen, seen["maps"])
    if gradient is None:
        raise TrainingError(f"--layer {layer.name}: the answer does not depend on its maps; choose another layer")
    return _heat(seen["maps"].numpy(), gradient.numpy())


def feature_maps(model: Any, rows: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Computes what every convolution gives, of the first layers and evenly spread ones if there are more than 16.

    Args:
        model: From pixels to probabilities.
        rows: `uint8[n, h, w, c]`.

    Returns:
        Layer → `float32[n, h', w', k]`, in the order of the layers.
    """
    layers = [layer for layer in flat_layers(model) if _is_convolution(layer)]
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(SHOWN_LAYERS, len(layers))).round().astype(int))
    seen: dict[str, NDArray[np.float32]] = {}
    with ExitStack() as watch:
        for index in chosen.tolist():
            watch.enter_context(observed(layers[index], _keeping(seen, f"{index + 1:03}-{layers[index].name}")))
        model(rows, training=False)
    return seen


def last_maps(model: Any, rows: NDArray[np.uint8]) -> Any:
    """Finds the layer whose maps Grad-CAM weighs: the last convolution, with the activation that follows it.

    A convolution with maps of one pixel shows no place, so the last larger one is taken where there is one. What a
    normalisation, a sum or an activation makes of a convolution's maps is what the rest of the model goes by.

    Args:
        model: From pixels to probabilities.
        rows: `uint8[n, h, w, c]`, of which one is run.

    Returns:
        The layer, or nothing where the model has no convolution.
    """
    layers = flat_layers(model)
    convolutions = [index for index, layer in enumerate(layers) if _is_convolution(layer)]
    if not convolutions:
        return None
    sizes: dict[int, int] = {}
    with ExitStack() as watch:
        for index in convolutions:
            watch.enter_context(observed(layers[index], _measuring(sizes, index)))
        model(rows[:1], training=False)
    roomy = [index for index in convolutions if sizes.get(index, 0) > 1]
    last = (roomy or convolutions)[-1]
    while last + 1 < len(layers) and isinstance(layers[last + 1], _FOLLOWERS):
        last += 1
    return layers[last]


def named_layer(model: Any, name: str) -> Any:
    """Finds the layer that a user names.

    Raises:
        TrainingError: There is none.
    """
    layers = {layer.name: layer for layer in flat_layers(model)}
    if name not in layers:
        spatial = [key for key, layer in layers.items() if _is_convolution(layer)]
        listed = ", ".join(spatial) or "none, as the model has no convolution"
        raise TrainingError(
            f"--layer: expected a layer with maps, such as the convolutions ({listed}); received '{name}'"
        )
    return layers[name]


def _check_maps(layer: Any, maps: Any) -> None:
    if len(maps.shape) != _MAPS_RANK:
        raise TrainingError(
            f"--layer: expected a layer that gives maps [n, height, width, channels]; received '{layer.name}', which"
            f" gives [{', '.join(map(str, ('n', *maps.shape[1:])))}]; name a convolution"
        )


def _heat(maps: NDArray[Any], gradient: NDArray[Any]) -> NDArray[np.float32]:
    """Weighs maps by their mean gradient, keeps what speaks for the class, and scales each picture's to 0..1."""
    weights = gradient.astype(np.float32).mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps.astype(np.float32)).sum(axis=-1), 0)
    strongest = heat.max(axis=(1, 2), keepdims=True)
    scaled: NDArray[np.float32] = np.divide(heat, strongest, out=np.zeros_like(heat), where=strongest > 0)
    return scaled


def _is_convolution(layer: Any) -> bool:
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return isinstance(layer, convolutions)


def _keeping(seen: dict[str, NDArray[np.float32]], name: str) -> Any:
    def keep(_: Any, outputs: Any) -> None:
        seen[name] = np.asarray(outputs, dtype=np.float32)

    return keep


def _measuring(sizes: dict[int, int], index: int) -> Any:
    def measure(_: Any, outputs: Any) -> None:
        sizes[index] = outputs.shape[1] * outputs.shape[2]

    return measure


@contextmanager
def _scores(model: Any) -> Iterator[Mapping[str, Any]]:
    """Watches for the scores before the softmax, which the paper takes; a sure softmax has next to no gradient."""
    last = flat_layers(model)[-1]
    seen: dict[str, Any] = {}

    def observe(inputs: Any, _: Any) -> None:
        seen["scores"] = _linear(last, inputs) if isinstance(last, keras.layers.Dense) else inputs

    if _is_softmax(last):
        with observed(last, observe):
            yield seen
    else:
        yield seen


def _is_softmax(layer: Any) -> bool:
    with_activation = isinstance(layer, (keras.layers.Dense, keras.layers.Activation))
    return isinstance(layer, keras.layers.Softmax) or (
        with_activation and layer.activation is keras.activations.softmax
    )


def _linear(dense: Any, inputs: Any) -> Any:
    product = keras.ops.matmul(keras.ops.cast(inputs, dense.kernel.dtype), dense.kernel)
    return product if dense.bias is None else product + dense.bias
