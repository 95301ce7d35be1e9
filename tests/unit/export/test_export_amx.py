"""int8-amx: the same answers by other arithmetic, written only where it is faster, and only for wide layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from export import amx, convert, quantize, quiet, verify
from export.graph import constants
from export.pipeline import Result, create
from export.quantize import FIRST_FLOAT, PIXELS_INT8, Recipe
from export.settings import ExportSettings, Gates
from tests.unit.export.conftest import TRAIN_ROWS, digits, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wide_model(keras: Any) -> Any:
    """Two narrow convolutions and one of 32 → 64 channels, with one dead filter."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    blocks = [layers.Conv2D(filters, 3, padding="same", activation="relu") for filters in (8, 32, 64)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), *blocks, *head])
    pixels, labels = digits()
    with quiet.noisy_library():
        model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(pixels[:TRAIN_ROWS], labels[:TRAIN_ROWS], batch_size=50, epochs=4, verbose=0)
        kernel, bias = blocks[-1].get_weights()
        kernel[..., 5] = 0.0
        blocks[-1].set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def wide_runs(wide_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wide")
    with quiet.noisy_library():
        write_run(root / "tiny" / "1", wide_model, *digits())
    return root


@pytest.fixture(scope="module")
def prepared(wide_model: Any) -> ModelProto:
    return quantize.prepare(convert.to_onnx(wide_model, opset=17))


def answers(model: ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return verify.answer(verify.open_session(model.SerializeToString()), pixels)


def weight_zero_points(model: ModelProto) -> dict[tuple[int, ...], set[int]]:
    """Shape of each convolution's int8 weights → its zero points."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = [node.input for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in known]
    return {known[name].shape: set(known[zero].tolist()) for name, _, zero in found if known[name].ndim == 4}


def test_only_wide_layers_that_become_int8_are_chosen(prepared: ModelProto) -> None:
    layers = quantize.layers(prepared, Recipe("minmax", PIXELS_INT8))
    (weight,) = amx.wide_weights(prepared, layers)
    assert constants(prepared)[weight].shape == (64, 32, 3, 3)
    assert amx.wide_weights(prepared, [layer for layer in layers if layer != "Conv_2"]) == []


@pytest.mark.parametrize("start", [PIXELS_INT8, FIRST_FLOAT])
def test_wide_weights_get_a_zero_point_of_one_and_the_answers_stay(prepared: ModelProto, start: str) -> None:
    pixels, _ = digits()
    recipe = Recipe("minmax", start)
    plain = quantize.quantize(prepared, pixels[:300], recipe)
    products = quantize.quantize(prepared, pixels[:300], Recipe("minmax", start, products=True))
    assert set().union(*weight_zero_points(plain).values()) == {0}
    zero_points = weight_zero_points(products)
    assert zero_points[64, 32, 3, 3] == {1}
    assert zero_points[32, 8, 3, 3] == {0}
    before, after = answers(plain, pixels[TRAIN_ROWS:]), answers(products, pixels[TRAIN_ROWS:])
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.98
    assert np.abs(before - after).mean() < 0.005


def export(runs: Path, models: Path, roomy_gates: Gates, **gates: float) -> Result:
    way: dict[str, Any] = {"first_layer": "int8", "calibration": "minmax", "pixel_groups": "off"}
    settings = ExportSettings(runs=runs, models=models, activation_map=False, **way)
    return create("tiny", "latest", settings, roomy_gates.model_copy(update=gates), lambda line: None)


def test_a_gain_of_nothing_asked_for_writes_it_beside_int8(wide_runs: Path, tmp_path: Path, roomy_gates: Gates) -> None:
    result = export(wide_runs, tmp_path, roomy_gates, min_amx_gain=0.0)
    assert [one.name for one in result.manifest.variants] == ["float32", "int8", "int8-amx"]
    assert result.manifest.variants[2].file == "model.int8-amx.onnx"
    assert result.report["variants"]["int8-amx"]["recipe"] == "pixels-int8, minmax, matrix products"


def test_where_it_is_no_faster_int8_is_alone_and_the_report_says_why(
    wide_runs: Path, tmp_path: Path, roomy_gates: Gates
) -> None:
    result = export(wide_runs, tmp_path, roomy_gates, min_amx_gain=1e6)
    assert [one.name for one in result.manifest.variants] == ["float32", "int8"]
    (refused,) = result.report["refused"]
    assert refused["variant"] == "int8-amx"
    assert refused["reasons"][0].startswith("speed as a multiple of int8's: expected at least 1e+06, received ")
