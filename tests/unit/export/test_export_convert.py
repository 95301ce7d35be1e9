"""Keras models that need care on their way to ONNX."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import convert, verify
from export.errors import ExportError
from export.graph import operators, pixel_chain
from export.quiet import noisy_library
from server.images import ImageSpec

pytestmark = pytest.mark.slow


def small(keras: Any, *middle: Any, dtype: str | None = None) -> Any:
    layers = [keras.layers.Input((8, 8, 3)), *middle, keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(4, activation="softmax", dtype=dtype)])


def noise(rows: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (rows, 8, 8, 3), np.uint8)


def test_pixels_are_laid_out_as_bytes_and_scaled_once(keras: Any) -> None:
    model = small(keras, keras.layers.Rescaling(1 / 127.5, offset=-1.0), keras.layers.Conv2D(4, 3))
    graph = convert.to_onnx(model, opset=17)
    assert [node.op_type for node in graph.graph.node[:5]] == ["Transpose", "Cast", "Mul", "Add", "Conv"]
    chain = pixel_chain(graph)
    assert chain is not None
    assert (chain.scale, chain.offset) == pytest.approx((1 / 127.5, -1.0))
    answers = verify.answer(verify.open_session(graph.SerializeToString()), noise(5))
    assert np.abs(answers - convert.predict(model, noise(5))).max() < 1e-6


def test_a_mixed_precision_model_is_exported_in_float32(keras: Any) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        conv = keras.layers.Conv2D(4, 3, use_bias=False)
        mixed = small(keras, keras.layers.Rescaling(1 / 255), conv, keras.layers.BatchNormalization(), dtype="float32")
    finally:
        keras.config.set_dtype_policy(before)
    model = convert.in_float32(mixed)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert np.abs(convert.predict(mixed, noise(4)) - convert.predict(model, noise(4))).max() < 0.05
    graph = convert.to_onnx(model, opset=17)
    assert operators(graph)["Cast"] == 1
    answers = verify.answer(verify.open_session(graph.SerializeToString()), noise(4))
    assert np.abs(answers - convert.predict(model, noise(4))).max() < 1e-6


def test_an_operator_that_onnx_lacks_is_named(keras: Any) -> None:
    pixels = keras.Input((8, 8, 3))
    hidden = keras.layers.Flatten()(keras.ops.erfinv(pixels / 300))
    model = keras.Model(pixels, keras.layers.Dense(4, activation="softmax")(hidden))
    with pytest.raises(ExportError, match=r"received Erfinv \(.*\); use another layer"):
        convert.to_onnx(model, opset=17)


def test_a_model_with_code_inside_is_refused(keras: Any, tmp_path: Path) -> None:
    model = small(keras, keras.layers.Lambda(lambda pixels: pixels / 255))
    with noisy_library():
        model.save(tmp_path / "model.keras")
    with pytest.raises(ExportError, match=r"cannot be loaded: .*built-in layers"):
        convert.load_keras(tmp_path / "model.keras", ImageSpec(8, 8, 3), 4)
