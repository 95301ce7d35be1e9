"""The fused normalisation, and the convolution of small maps, against Keras's own: the same numbers and weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,  # TensorFlow takes seconds to import
    # Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

SHAPES = [(16, 5, 7, 6), (16, 6)]
OPTIONS = [{}, {"momentum": 0.6, "epsilon": 1e-5, "scale": False}, {"center": False, "gamma_initializer": "zeros"}]


@pytest.fixture
def on_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AMX; what is computed there can be computed anywhere."""
    monkeypatch.setattr("training.layers._amx", lambda: True)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    import keras  # noqa: PLC0415 (slow to import)

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def pair(shape: tuple[int, ...], **options: Any) -> tuple[Any, Any]:
    """Returns the fused layer and Keras's, with the same random weights."""
    from training import layers  # noqa: PLC0415 (imports Keras)

    with layers.training_build():
        fused = layers.batch_norm(**options)
    stock = layers.batch_norm(**options)
    random = np.random.default_rng(5)
    for layer in (fused, stock):
        layer.build((None, *shape[1:]))
    weights = [random.uniform(0.5, 2, weight.shape).astype(np.float32) for weight in stock.weights]
    fused.set_weights(weights)
    stock.set_weights(weights)
    return fused, stock


def inputs(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(6).normal(3, 2, shape).astype(np.float32)


def test_only_a_training_build_is_fused() -> None:
    import keras  # noqa: PLC0415 (slow to import)

    from training import layers  # noqa: PLC0415

    fused, stock = pair(SHAPES[0])
    assert type(stock) is keras.layers.BatchNormalization
    assert type(fused) is layers.BatchNormalization
    with pytest.raises(ZeroDivisionError), layers.training_build():
        raise ZeroDivisionError
    assert type(layers.batch_norm()) is keras.layers.BatchNormalization


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_same_numbers_in_training_and_inference(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    fused, stock = pair(shape, **options)
    values = inputs(shape)
    for training in (True, False, True):
        ours, theirs = (np.asarray(layer(values, training=training)) for layer in (fused, stock))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [weight.name for weight in fused.weights] == [weight.name for weight in stock.weights]
    for ours, theirs in zip(fused.get_weights(), stock.get_weights(), strict=True):
        # 560 values a channel: the unbiased variance would be 1.002 times as large
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_same_gradients() -> None:
    import tensorflow as tf  # noqa: PLC0415 (slow to import)

    values = tf.constant(inputs(SHAPES[0]))
    towards = tf.constant(np.random.default_rng(7).normal(size=SHAPES[0]).astype(np.float32))
    found = []
    for layer in pair(SHAPES[0]):
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = tf.reduce_sum(layer(values, training=True) * towards)
        found.append(tape.gradient(loss, [values, layer.gamma.value, layer.beta.value]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_frozen_layer_does_not_move() -> None:
    fused, stock = pair(SHAPES[0])
    before = fused.get_weights()
    fused.trainable = stock.trainable = False
    values = inputs(SHAPES[0])
    ours, theirs = (np.asarray(layer(values, training=True)) for layer in (fused, stock))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for now, then in zip(fused.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.usefixtures("bfloat16")
def test_bfloat16_in_and_out_with_float32_averages() -> None:
    fused, stock = pair(SHAPES[0])
    ours, theirs = (layer(inputs(SHAPES[0]), training=True) for layer in (fused, stock))
    assert ours.dtype == theirs.dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=0.02, atol=0.02)
    assert {weight.dtype for weight in fused.weights} == {"float32"}


def test_weights_file_of_a_training_build_loads_into_the_other(tmp_path: Path) -> None:
    from server.images import ImageSpec  # noqa: PLC0415
    from training import layers, models  # noqa: PLC0415

    cnn = models.get("cnn")
    with layers.training_build():
        trained = cnn.build(cnn.settings(), ImageSpec(8, 8, 1), 3)
    saved = cnn.build(cnn.settings(), ImageSpec(8, 8, 1), 3)
    rows = inputs((4, 8, 8, 1))
    trained(rows, training=True)  # moves the averages off their start
    trained.save_weights(tmp_path / "of.weights.h5")
    saved.load_weights(tmp_path / "of.weights.h5")
    np.testing.assert_allclose(
        np.asarray(trained(rows, training=False)), np.asarray(saved(rows, training=False)), rtol=1e-4, atol=1e-6
    )


def conv_pair(maps: Any, kernel_px: int, **options: Any) -> tuple[Any, Any]:
    """Returns the convolution of a training build and Keras's, with the same random weights."""
    from training import layers  # noqa: PLC0415 (imports Keras)

    with layers.training_build():
        ours = layers.conv(5, kernel_px, **options)
    stock = layers.conv(5, kernel_px, **options)
    for layer in (ours, stock):
        layer.build(maps.shape)
    ours.set_weights(stock.get_weights())
    return ours, stock


def gradients(layer: Any, maps: Any) -> list[Any]:
    """Returns the gradients of the kernel and of the maps, of a linear function of the result with whole factors."""
    import tensorflow as tf  # noqa: PLC0415 (slow to import)

    with tf.GradientTape() as tape:
        tape.watch(maps)
        result = tf.cast(layer(maps), "float32")
        loss = tf.reduce_sum(result * np.random.default_rng(7).integers(-2, 3, result.shape).astype(np.float32))
    return [np.asarray(tf.cast(gradient, "float32")) for gradient in tape.gradient(loss, [layer.kernel.value, maps])]


@pytest.mark.usefixtures("on_amx")
@pytest.mark.parametrize("kernel_px", [1, 2, 3])
@pytest.mark.parametrize("places", [(3, 3), (7, 5)])
def test_small_maps_have_the_gradients_of_keras(kernel_px: int, places: tuple[int, int]) -> None:
    import tensorflow as tf  # noqa: PLC0415 (slow to import)

    # Of whole numbers all sums of the kernel's gradient are whole and below 256, which bfloat16 holds exactly.
    maps = tf.constant(np.random.default_rng(8).integers(-1, 2, (4, *places, 3)).astype(np.float32))
    ours, stock = conv_pair(maps, kernel_px, padding="same", use_bias=False, dtype="mixed_bfloat16")
    np.testing.assert_array_equal(np.asarray(ours(maps)), np.asarray(stock(maps)))
    (kernels, of_maps), (stock_kernels, of_stock_maps) = gradients(ours, maps), gradients(stock, maps)
    np.testing.assert_array_equal(kernels, stock_kernels)
    np.testing.assert_allclose(of_maps, of_stock_maps, rtol=0.02, atol=0.05)


@pytest.mark.usefixtures("on_amx")
@pytest.mark.parametrize(
    ("width", "options"),
    [
        (9, {}),
        (7, {"dtype": "float32"}),
        (7, {"padding": "valid"}),
        (7, {"strides": 2}),
        (7, {"dilation_rate": 2}),
        (7, {"groups": 5}),
    ],
)
def test_what_is_not_small_and_plain_goes_the_way_of_keras(
    monkeypatch: pytest.MonkeyPatch, width: int, options: dict[str, Any]
) -> None:
    import tensorflow as tf  # noqa: PLC0415 (slow to import)

    from training import layers  # noqa: PLC0415

    monkeypatch.setattr(layers, "_kernel_gradient", None)
    maps = tf.constant(inputs((2, 5, width, 5)))
    for layer in conv_pair(maps, 3, **{"padding": "same", "dtype": "mixed_bfloat16"} | options):
        gradients(layer, maps)


@pytest.mark.usefixtures("on_amx", "bfloat16")
def test_weights_of_a_training_build_with_small_maps_load_into_the_other(tmp_path: Path) -> None:
    from server.images import ImageSpec  # noqa: PLC0415
    from training import layers, models  # noqa: PLC0415

    fast = models.get("fast")
    settings = fast.settings(widths=(4, 4), convs=(2, 3), stem_filters=4)
    with layers.training_build():
        trained = fast.build(settings, ImageSpec(8, 8, 1), 3)
    saved = fast.build(settings, ImageSpec(8, 8, 1), 3)
    assert sum(type(layer) is layers.Conv2D for layer in trained.layers) == 5
    assert not any(type(layer) is layers.Conv2D for layer in saved.layers)
    rows = inputs((4, 8, 8, 1))
    trained.save_weights(tmp_path / "of.weights.h5")
    saved.load_weights(tmp_path / "of.weights.h5")
    np.testing.assert_allclose(np.asarray(trained(rows)), np.asarray(saved(rows)), rtol=0.02, atol=0.02)


def test_only_a_processor_with_amx_gets_the_other_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    from training import layers  # noqa: PLC0415

    monkeypatch.setattr(layers, "_amx", lambda: False)
    with layers.training_build():
        assert type(layers.conv(4, 3)) is keras.layers.Conv2D
