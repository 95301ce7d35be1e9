"""Narrow convolutions over several pixels at once: another graph, and not one answer differs."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from export import graph, quantize, verify
from export.int8 import _faster_ways
from export.pixel_groups import group_pixels
from export.quantize import FIRST_FLOAT, PIXELS_INT8, PLAIN, Recipe

CLASSES = 3


def network(image: tuple[int, int, int], *layers: dict[str, Any], offset: float = 0.0) -> ModelProto:
    """Convolutions with a Relu behind each, global pooling and a dense layer, as tf2onnx would write them."""
    random = np.random.default_rng(0)
    weights: dict[str, Any] = {"scale": np.float32(1 / 255), "offset": np.float32(offset)}
    nodes = [
        helper.make_node("Transpose", ["image"], ["laid"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["laid"], ["cast"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["x0"]),
    ]
    channels = image[2]
    for index, layer in enumerate(layers):
        filters, side = layer["filters"], layer.get("kernel", 3)
        shape = (filters, channels // layer.get("group", 1), side, side)
        weights[f"w{index}"] = (random.normal(size=shape) / side / np.sqrt(shape[1])).astype(np.float32)
        weights[f"b{index}"] = (random.normal(size=filters) / 4).astype(np.float32)
        rest = {key: value for key, value in layer.items() if key not in ("filters", "kernel")}
        nodes.append(helper.make_node("Conv", [f"x{index}", f"w{index}", f"b{index}"], [f"c{index}"], **rest))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"]))
        channels = filters
    weights["dense"] = random.normal(size=(channels, CLASSES)).astype(np.float32)
    nodes += [
        helper.make_node("ReduceMean", [f"x{len(layers)}"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    for node in nodes:
        node.name = f"node.{node.output[0]}"
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", *image])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return quantize.prepare(graph.tidy(model))


def quantized(model: ModelProto, image: tuple[int, int, int], start: str = PIXELS_INT8) -> ModelProto:
    return quantize.quantize(model, pictures(image, 50, seed=1), Recipe("minmax", start))


def pictures(image: tuple[int, int, int], count: int, seed: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *image), dtype=np.uint8)


def answers(model: ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return verify.answer(verify.open_session(model.SerializeToString()), pixels)


def kernels(model: ModelProto) -> list[tuple[int, ...]]:
    """The shape of each convolution's int8 kernel, first to last."""
    known = graph.constants(model)
    dequantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return [known[dequantized[node.input[1]]].shape for node in convolutions if node.input[1] in dequantized]


SAME = {"pads": [1, 1, 1, 1]}
GROUPED = {
    "a colour picture": ((6, 8, 3), [{"filters": 5, **SAME}], [(20, 12, 3, 3)]),
    "a grey one": ((5, 12, 1), [{"filters": 4, **SAME}], [(16, 4, 3, 3)]),
    "four channels, as features": ((4, 8, 4), [{"filters": 16, **SAME}], [(32, 4, 3, 4)]),
    "a wide kernel": ((8, 8, 3), [{"filters": 6, "kernel": 5, "pads": [2, 2, 2, 2]}], [(24, 12, 5, 3)]),
    "a kernel of one pixel": ((4, 8, 3), [{"filters": 6, "kernel": 1}], [(24, 12, 1, 1)]),
    "halved, padded behind": ((8, 8, 3), [{"filters": 8, "strides": [2, 2], "pads": [0, 0, 1, 1]}], [(16, 12, 3, 2)]),
    "halved, padded before": ((8, 8, 3), [{"filters": 8, "strides": [2, 2], **SAME}], [(16, 12, 3, 2)]),
    "features": ((4, 8, 3), [{"filters": 8, **SAME}, {"filters": 16, **SAME}], [(32, 12, 3, 3), (32, 8, 3, 4)]),
    "features, halved": (
        (8, 8, 3),
        [{"filters": 8, **SAME}, {"filters": 16, "strides": [2, 2], **SAME}],
        [(32, 12, 3, 3), (32, 8, 3, 5)],
    ),
    "rows and columns by other strides": (
        (8, 8, 3),
        [{"filters": 8, **SAME}, {"filters": 8, "strides": [2, 1], **SAME}],
        [(32, 12, 3, 3), (32, 8, 3, 6)],
    ),
}


@pytest.mark.parametrize(("image", "layers", "expected"), GROUPED.values(), ids=GROUPED)
def test_the_answers_are_the_same_to_the_bit(
    image: tuple[int, int, int], layers: list[dict[str, Any]], expected: list[tuple[int, ...]]
) -> None:
    plain = quantized(network(image, *layers), image)
    before = plain.SerializeToString()
    grouped = group_pixels(plain)
    assert grouped is not None
    assert kernels(grouped) == expected
    assert plain.SerializeToString() == before
    pixels = pictures(image, 40)
    right = answers(plain, pixels)
    assert len(np.unique(right.round(4), axis=0)) > 30  # so that a wrong sum would be seen
    np.testing.assert_array_equal(answers(grouped, pixels), right)


LEFT = {
    "outputs enough": ((4, 8, 3), [{"filters": 8, **SAME}, {"filters": 32, **SAME}], [(32, 12, 3, 3), (32, 8, 3, 3)]),
    "by channel": (
        (4, 8, 3),
        [{"filters": 8, **SAME}, {"filters": 8, "group": 8, **SAME}],
        [(32, 12, 3, 3), (8, 1, 3, 3)],
    ),
    "in groups": (
        (4, 8, 3),
        [{"filters": 8, **SAME}, {"filters": 16, "group": 2, **SAME}],
        [(32, 12, 3, 3), (16, 4, 3, 3)],
    ),
    "dilated": (
        (8, 8, 3),
        [{"filters": 8, **SAME}, {"filters": 8, "dilations": [2, 2], "pads": [2, 2, 2, 2]}],
        [(32, 12, 3, 3), (8, 8, 3, 3)],
    ),
}


@pytest.mark.parametrize(("image", "layers", "expected"), LEFT.values(), ids=LEFT)
def test_a_layer_that_would_not_gain_is_left(
    image: tuple[int, int, int], layers: list[dict[str, Any]], expected: list[tuple[int, ...]]
) -> None:
    plain = quantized(network(image, *layers), image)
    grouped = group_pixels(plain)
    assert grouped is not None
    assert kernels(grouped) == expected
    np.testing.assert_array_equal(answers(grouped, pictures(image, 8)), answers(plain, pictures(image, 8)))


@pytest.mark.parametrize(
    ("image", "layer"),
    [((4, 7, 3), {"filters": 8, **SAME}), ((8, 8, 3), {"filters": 8})],
    ids=["a row that does not divide", "a row that loses its edge"],
)
def test_pictures_that_do_not_divide_are_left(image: tuple[int, int, int], layer: dict[str, Any]) -> None:
    assert group_pixels(quantized(network(image, layer), image)) is None


def test_a_kernel_with_a_zero_point_is_left_because_its_padding_is_no_zero() -> None:
    image = (4, 8, 4)
    plain = quantized(network(image, {"filters": 16, **SAME}), image)
    assert group_pixels(plain) is not None
    (layer,) = [node for node in plain.graph.node if node.op_type == "Conv"]
    (zero_point,) = [node.input[2] for node in plain.graph.node if node.output[0] == layer.input[1]]
    (tensor,) = [one for one in plain.graph.initializer if one.name == zero_point]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(1), zero_point))
    assert group_pixels(plain) is None


def test_with_the_first_layer_in_float_only_the_others_are_grouped() -> None:
    image = (4, 8, 3)
    model = network(image, {"filters": 8, **SAME}, {"filters": 8, **SAME})
    plain = quantized(model, image, FIRST_FLOAT)
    grouped = group_pixels(plain)
    assert grouped is not None
    assert (kernels(plain), kernels(grouped)) == ([(8, 8, 3, 3)], [(32, 8, 3, 6)])
    np.testing.assert_array_equal(answers(grouped, pictures(image, 8)), answers(plain, pictures(image, 8)))


def test_scaled_pixels_that_are_quantized_anew_are_no_bytes_to_reshape() -> None:
    image = (4, 8, 3)
    model = network(image, {"filters": 8, **SAME}, offset=-0.3)
    assert quantize.starts(model) == (FIRST_FLOAT, PLAIN)
    assert group_pixels(quantized(model, image, PLAIN)) is None


def test_of_both_ways_the_faster_is_kept_for_each_recipe() -> None:
    plain = [Recipe("minmax", start) for start in (FIRST_FLOAT, PIXELS_INT8)]
    grouped = [Recipe("minmax", start, grouped=True) for start in (FIRST_FLOAT, PIXELS_INT8)]
    speeds = dict(zip(map(str, [*plain, *grouped]), [3.0, 1.0, 2.0, 4.0], strict=True))
    kept = _faster_ways(dict.fromkeys([*plain, *grouped], b""), speeds)
    assert set(kept) == {plain[0], grouped[1]}
