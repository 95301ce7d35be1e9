"""Keras models of other shapes than the registry's: they convert, or one line says what to do."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import convert, quantize, quiet, verify
from export.errors import ExportError
from export.graph import operators
from server.images import ImageSpec

pytestmark = pytest.mark.slow

IMAGE = ImageSpec(16, 16, 3)


def answers_like_keras(model: Any, graph: onnx.ModelProto, tolerance: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    answers = verify.answer(verify.open_session(graph.SerializeToString()), pixels)
    assert np.abs(answers - convert.predict(model, pixels)).max() < tolerance


def residual(keras: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    value = image = layers.Input((16, 16, 3))
    value = layers.Rescaling(1 / 127.5, offset=-1.0)(value)
    for filters, stride in ((8, 1), (16, 2)):
        short = layers.Conv2D(filters, 1, stride, use_bias=False)(value)
        value = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(value)
        value = layers.ReLU()(layers.BatchNormalization()(value))
        value = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(value))
        value = layers.ReLU()(layers.Add()([value, layers.BatchNormalization()(short)]))
    value = layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, layers.Dense(4, activation="softmax")(value))


def separable(keras: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    value = image = layers.Input((16, 16, 3))
    value = layers.Rescaling(1 / 255)(value)
    for activation in ("silu", "gelu", "relu6"):
        value = layers.DepthwiseConv2D(3, padding="same")(value)
        value = layers.Activation(activation)(layers.BatchNormalization()(layers.Conv2D(8, 1)(value)))
    scaled = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(value)))
    value = layers.GlobalMaxPooling2D()(layers.Multiply()([value, scaled]))
    return keras.Model(image, layers.Dense(4, activation="softmax")(value))


def sigmoid_ended(keras: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    body = [layers.Rescaling(1 / 255), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()]
    network = keras.Sequential([layers.Input((16, 16, 3)), *body, layers.Dense(1, activation="sigmoid")])
    return keras.Model(network.inputs, layers.Concatenate()([1.0 - network.outputs[0], network.outputs[0]]))


@pytest.mark.parametrize("make", [residual, separable, sigmoid_ended])
def test_it_converts_and_quantizes(keras: Any, make: Any) -> None:
    model = make(keras)
    graph = convert.to_onnx(model, opset=17)
    answers_like_keras(model, graph, 1e-5)
    pixels = np.random.default_rng(1).integers(0, 256, (50, 16, 16, 3), np.uint8)
    prepared = quantize.prepare(graph)
    for start in quantize.starts(prepared):
        answers_like_keras(model, quantize.quantize(prepared, pixels, quantize.Recipe("minmax", start)), 0.05)


def test_what_follows_the_last_layer_is_not_rounded(keras: Any) -> None:
    prepared = quantize.prepare(convert.to_onnx(sigmoid_ended(keras), opset=17))
    pixels = np.random.default_rng(1).integers(0, 256, (50, 16, 16, 3), np.uint8)
    for start in quantize.starts(prepared):
        made = quantize.quantize(prepared, pixels, quantize.Recipe("minmax", start))
        kinds = [node.op_type for node in made.graph.node]
        assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds[kinds.index("Sigmoid") :])
        producers = {name: node.op_type for node in made.graph.node for name in node.output}
        (sigmoid,) = [node for node in made.graph.node if node.op_type == "Sigmoid"]
        assert producers[sigmoid.input[0]] in ("Gemm", "MatMul", "Add")


def test_residual_sums_stay_in_int8_with_nothing_in_between(keras: Any) -> None:
    prepared = quantize.prepare(convert.to_onnx(residual(keras), opset=17))
    pixels = np.random.default_rng(1).integers(0, 256, (50, 16, 16, 3), np.uint8)
    made = quantize.quantize(prepared, pixels, quantize.Recipe("minmax", quantize.starts(prepared, "int8")[0]))
    producers = {name: node for node in made.graph.node for name in node.output}
    sums = [node for node in made.graph.node if node.op_type == "Add" and len(node.input) == 2]
    residuals = [one for one in sums if all(producers[name].op_type == "DequantizeLinear" for name in one.input)]
    assert len(residuals) == 2
    assert "Relu" not in operators(made)  # each is the lower bound of a QuantizeLinear


def test_a_custom_layer_without_its_code_is_one_clear_error(keras: Any, tmp_path: Path) -> None:
    class Twice(keras.layers.Layer):  # type: ignore[misc]
        def call(self, value: Any) -> Any:
            return value * 2

    inputs = keras.layers.Input((16, 16, 3))
    dense = keras.layers.Dense(4, activation="softmax")
    model = keras.Model(inputs, dense(keras.layers.Flatten()(Twice(name="doubling")(inputs))))
    with quiet.noisy_library():
        model.save(tmp_path / "model.keras")
    with pytest.raises(
        ExportError, match=r"model\.keras cannot be loaded: it has Twice 'doubling'; expected .*code of custom"
    ) as caught:
        convert.load_keras(tmp_path / "model.keras", IMAGE, 4)
    assert "\n" not in str(caught.value)


def test_an_operator_that_onnx_does_not_have_is_named_with_its_place(keras: Any) -> None:
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    class Beta(keras.layers.Layer):  # type: ignore[misc]
        def call(self, value: Any) -> Any:
            return tf.math.betainc(tf.nn.sigmoid(value), 0.5, 0.5)

    inputs = keras.layers.Input((16, 16, 3))
    flat = Beta(name="regularised_beta")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(flat))
    with pytest.raises(ExportError, match=r"Betainc \(.*regularised_beta.*\); use another layer there") as caught:
        convert.to_onnx(model, opset=17)
    assert "\n" not in str(caught.value)
