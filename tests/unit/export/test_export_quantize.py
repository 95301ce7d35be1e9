"""What is done to an int8 graph changes its speed and not its answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from export import convert, quantize, verify
from export.quantize import FIRST_FLOAT, PIXELS_INT8, PLAIN, Recipe
from export.run_folder import find_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(keras_model: Any) -> ModelProto:
    return quantize.prepare(convert.to_onnx(keras_model, opset=17))


@pytest.fixture(scope="module")
def rows(trained_runs: Path) -> NDArray[np.uint8]:
    return find_run(trained_runs, "tiny").rows("calibration").pixels


def answers(model: ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return verify.answer(verify.open_session(model.SerializeToString()), pixels)


def test_pixels_go_straight_into_the_first_dequantize(prepared: ModelProto, rows: NDArray[np.uint8]) -> None:
    graph = quantize.quantize(prepared, rows, Recipe("minmax", PIXELS_INT8)).graph
    kinds = [node.op_type for node in graph.node]
    assert not {"Cast", "Mul", "Add"} & set(kinds)
    assert kinds[:2] == ["Reshape", "DequantizeLinear"]
    assert kinds.index("QuantizeLinear") > kinds.index("Conv")


def test_pixels_straight_in_answer_exactly_as_through_cast_and_scale(
    prepared: ModelProto, rows: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = rows // 2  # a range found from these would be half of what pixels can be
    short = answers(quantize.quantize(prepared, dark, Recipe("minmax", PIXELS_INT8)), rows)
    monkeypatch.setattr(quantize, "_pixels_to_first_layer", lambda *given: None)
    long_way = quantize.quantize(prepared, dark, Recipe("minmax", PIXELS_INT8))
    assert "Cast" in {node.op_type for node in long_way.graph.node}
    assert np.array_equal(short, answers(long_way, rows))


def test_the_barrier_behind_the_float_pool_changes_no_answer(
    prepared: ModelProto, rows: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = quantize.quantize(prepared, rows, Recipe("minmax", FIRST_FLOAT))
    monkeypatch.setattr(quantize, "_keep_pool_in_float", lambda *given: None)
    plain = quantize.quantize(prepared, rows, Recipe("minmax", FIRST_FLOAT))
    assert sum(node.op_type == "Mul" for node in kept.graph.node) == 2
    assert sum(node.op_type == "Mul" for node in plain.graph.node) == 1
    assert np.array_equal(answers(kept, rows), answers(plain, rows))


@pytest.mark.parametrize("start", [FIRST_FLOAT, PIXELS_INT8, PLAIN])
def test_the_last_layer_stays_float(prepared: ModelProto, rows: NDArray[np.uint8], start: str) -> None:
    graph = quantize.quantize(prepared, rows, Recipe("minmax", start)).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    (softmax,) = [node for node in graph.node if node.op_type == "Softmax"]
    assert producers[softmax.input[0]] == "Gemm"


def test_the_first_layer_alone_stays_float(prepared: ModelProto, rows: NDArray[np.uint8]) -> None:
    graph = quantize.quantize(prepared, rows, Recipe("minmax", FIRST_FLOAT)).graph
    weights = {tensor.name for tensor in graph.initializer}
    first, second = (node for node in graph.node if node.op_type == "Conv")
    assert first.input[1] in weights
    assert second.input[1] not in weights  # dequantized from int8


def test_the_graph_handed_over_is_not_changed(prepared: ModelProto, rows: NDArray[np.uint8]) -> None:
    before = prepared.SerializeToString()
    quantize.quantize(prepared, rows, Recipe("minmax", PIXELS_INT8))
    assert prepared.SerializeToString() == before


def test_both_ways_to_start_are_offered_unless_one_is_asked_for(prepared: ModelProto) -> None:
    assert quantize.starts(prepared) == (FIRST_FLOAT, PIXELS_INT8)
    assert quantize.starts(prepared, "int8") == (PIXELS_INT8,)
    assert quantize.starts(prepared, "float32") == (FIRST_FLOAT,)
