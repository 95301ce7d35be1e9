"""What rounding the weights adds to every output of a channel is taken out of its bias."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from export import bias_correction, graph, quantize, verify
from export.quantize import FIRST_FLOAT, PIXELS_INT8, Recipe
from tests.unit.export.test_export_pixel_groups import SAME, network, pictures

IMAGE = (6, 8, 3)


@pytest.fixture(scope="module")
def prepared() -> ModelProto:
    depthwise = {"filters": 16, "group": 8, **SAME}
    return network(IMAGE, {"filters": 8, **SAME}, depthwise, {"filters": 12, "kernel": 1})


def channel_means(model: ModelProto, rows: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean logits: every layer's shift reaches them."""
    (name,) = {node.input[0] for node in model.graph.node if node.op_type == "Softmax"}
    watched = ModelProto.FromString(model.SerializeToString())
    watched.graph.output.append(helper.make_empty_tensor_value_info(name))
    return np.asarray(verify.open_session(watched.SerializeToString()).run([name], {"image": rows})[0].mean(0))


@pytest.mark.parametrize("start", [PIXELS_INT8, FIRST_FLOAT])
def test_the_mean_answer_comes_nearer_to_float(
    prepared: ModelProto, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pictures(IMAGE, 200)
    recipe = Recipe("minmax", start)
    right = channel_means(prepared, rows)
    corrected = channel_means(quantize.quantize(prepared, rows, recipe), rows)
    monkeypatch.setattr(quantize, "correct_biases", lambda *given: None)
    plain = channel_means(quantize.quantize(prepared, rows, recipe), rows)
    # What rounding the values between the layers does stays.
    assert np.abs(corrected - right).sum() < 0.9 * np.abs(plain - right).sum()


def rounded(layer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[ModelProto, ModelProto, ModelProto]:
    """A graph, and its int8 form before and after the correction."""
    model = network(IMAGE, layer)
    kept: list[ModelProto] = []
    monkeypatch.setattr(quantize, "correct_biases", lambda _, quantized, rows: kept.append(copy(quantized)))
    quantize.quantize(model, pictures(IMAGE, 50), Recipe("minmax", PIXELS_INT8))
    after = copy(kept[0])
    bias_correction.correct_biases(model, after, pictures(IMAGE, 50))
    return model, kept[0], after


def copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())


def test_a_bias_changes_by_the_error_of_its_weights_times_the_mean_input(monkeypatch: pytest.MonkeyPatch) -> None:
    model, before, after = rounded({"filters": 8, **SAME}, monkeypatch)
    (layer,) = [node for node in before.graph.node if node.op_type == "Conv"]
    sources = {node.output[0]: list(node.input) for node in before.graph.node if node.op_type == "DequantizeLinear"}
    known, corrected = graph.constants(before), graph.constants(after)
    values, scale, _ = sources[layer.input[1]]
    error = graph.constants(model)[layer.input[1].removesuffix("_DequantizeLinear_Output")]
    error = error - known[values].astype(float) * known[scale].reshape(-1, 1, 1, 1)
    means = pictures(IMAGE, 50).mean((0, 1, 2)) / 255
    bias, bias_scale, _ = sources[layer.input[2]]
    wanted = (error.sum((2, 3)) * means).sum(1)
    moved = (corrected[bias].astype(float) - known[bias]) * known[bias_scale]
    assert np.abs(wanted).max() > 10 * known[bias_scale].max()
    np.testing.assert_allclose(moved, wanted, atol=known[bias_scale].max())


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_dense_layer_is_shifted_whichever_way_its_weights_lie(transposed: int) -> None:
    error = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)  # by inputs, by outputs
    means = np.array([0.0, 1.0, 2.0, 3.0])
    layer = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)
    shift = bias_correction._shift(layer, error.T if transposed else error, means)
    np.testing.assert_allclose(shift, means @ error)
