"""Where in the picture a class was seen: the class-activation map.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016 (https://arxiv.org/abs/1512.04150).

    features [b, c, h, w] ──mean over h, w──▶ ──dense──▶ logits ──softmax──▶ probabilities
           └──the same dense layer at every place (a 1 × 1 convolution)──▶ activation_map [b, h, w, classes]

Its mean over height and width is the logit, because pooling and the dense layer are both linear; that is what export
checks. Only networks that end in this way have one: global average pooling, one dense layer, softmax.

It is a graph of its own, `model.explain.onnx`: a server computes every output of a graph for every request, and clients
that ask for all outputs would be sent all maps.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.graph import BATCH, OUTPUT, add_constant, canonical, constants

MAP: Final = "activation_map"
_CHANNELS_FIRST: Final = (2, 3)
_CHANNELS_LAST: Final = (1, 2)
_RESHAPES: Final = ("Squeeze", "Reshape", "Flatten", "Identity")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a network that has a class-activation map.

    Args:
        features: The value that is pooled.
        axes: Of height and width in it.
        kernel: `float32[channels, classes]` of the dense layer.
        bias: `float32[classes]`.
    """

    features: str
    axes: tuple[int, int]
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


def find_head(model: ModelProto) -> Head | None:
    """Looks for global average pooling, one dense layer and softmax at the end of a graph.

    Args:
        model: A float32 graph with the output `probabilities`.

    Returns:
        What was found, or None where the network ends otherwise.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    known = constants(model)
    softmax = producers.get(OUTPUT)
    if softmax is None or softmax.op_type != "Softmax":
        return None
    dense = _dense(softmax.input[0], producers, known)
    if dense is None:
        return None
    value, kernel, bias = dense
    while value in producers and producers[value].op_type in _RESHAPES:
        value = producers[value].input[0]
    pool = producers.get(value)
    axes = _pooled_axes(pool, known) if pool is not None else None
    if pool is None or axes is None:
        return None
    return Head(pool.input[0], axes, kernel, bias)


def add_activation_map(model: ModelProto, head: Head) -> ModelProto:
    """Gives a graph the second output `activation_map`, `float32[batch, height, width, classes]`.

    Args:
        model: The float32 graph; it is not changed.
        head: Of `find_head`.
    """
    explained = ModelProto.FromString(model.SerializeToString())
    kernel = add_constant(explained, f"{MAP}.weight", head.kernel)
    bias = add_constant(explained, f"{MAP}.bias", head.bias)
    value, nodes = head.features, []
    if head.axes == _CHANNELS_FIRST:
        # Only then does the graph know the features by channel first; a matrix product wants the channels last.
        nodes.append(helper.make_node("Transpose", [value], [f"{MAP}.last"], perm=[0, 2, 3, 1], name=f"{MAP}.layout"))
        value = f"{MAP}.last"
    nodes.append(helper.make_node("MatMul", [value, kernel], [f"{MAP}.product"], name=f"{MAP}.product"))
    nodes.append(helper.make_node("Add", [f"{MAP}.product", bias], [MAP], name=f"{MAP}.sum"))
    explained.graph.node.extend(nodes)
    classes = len(head.bias)
    shape: list[str | int | None] = [BATCH, "map_height", "map_width", classes]
    explained.graph.output.append(helper.make_tensor_value_info(MAP, TensorProto.FLOAT, shape))
    canonical(explained)
    _name_map_size(explained)
    onnx.checker.check_model(explained, full_check=True)
    return explained


def map_shape(explained: ModelProto) -> list[int]:
    """The map's shape, -1 for the batch and for what the graph leaves open.

    Args:
        explained: Of `add_activation_map`.
    """
    (value,) = [output for output in explained.graph.output if output.name == MAP]
    return [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]


def difference_from_probabilities(maps: NDArray[np.float32], probabilities: NDArray[np.float32]) -> float:
    """The largest difference between what the maps add up to and what the network answers.

    Args:
        maps: `float32[n, h, w, classes]`.
        probabilities: `float32[n, classes]`.
    """
    logits = maps.mean(axis=(1, 2), dtype=np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return float(np.abs(powers / powers.sum(1, keepdims=True) - probabilities).max())


def _dense(
    value: str, producers: dict[str, NodeProto], known: dict[str, NDArray[np.generic]]
) -> tuple[str, NDArray[np.float32], NDArray[np.float32]] | None:
    node = producers.get(value)
    bias: NDArray[np.float32] | None = None
    if node is not None and node.op_type == "Add":
        values = [name for name in node.input if name not in known]
        offsets = [name for name in node.input if name in known]
        if len(values) != 1 or not offsets:
            return None
        bias, node = known[offsets[0]].astype(np.float32).reshape(-1), producers.get(values[0])
    if node is None or node.op_type not in ("MatMul", "Gemm") or node.input[1] not in known:
        return None
    kernel = known[node.input[1]].astype(np.float32)
    if node.op_type == "Gemm":
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if attributes.get("transA") or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            return None
        kernel = np.ascontiguousarray(kernel.T) if attributes.get("transB") else kernel
        if len(node.input) > 2:  # noqa: PLR2004 - Gemm's third input is its bias
            bias = known[node.input[2]].astype(np.float32).reshape(-1) if node.input[2] in known else None
    if bias is None:
        bias = np.zeros(kernel.shape[1], np.float32)
    return (node.input[0], kernel, bias) if kernel.ndim == 2 and bias.shape == kernel.shape[1:] else None  # noqa: PLR2004


def _pooled_axes(pool: NodeProto, known: dict[str, NDArray[np.generic]]) -> tuple[int, int] | None:
    if pool.op_type == "GlobalAveragePool":
        return _CHANNELS_FIRST
    if pool.op_type != "ReduceMean":
        return None
    attributes = {one.name: helper.get_attribute_value(one) for one in pool.attribute}
    axes = attributes.get("axes", known[pool.input[1]].tolist() if len(pool.input) > 1 else ())
    found = tuple(sorted(int(axis) % 4 for axis in axes))
    return next((known_axes for known_axes in (_CHANNELS_FIRST, _CHANNELS_LAST) if found == known_axes), None)


def _name_map_size(explained: ModelProto) -> None:
    # The pooled value's size is fixed by the picture's: inference fills in what the placeholders above left open.
    inferred = onnx.shape_inference.infer_shapes(explained)
    there = {output.name: output for output in explained.graph.output}
    for output in inferred.graph.output:
        for ours, found in zip(
            there[output.name].type.tensor_type.shape.dim, output.type.tensor_type.shape.dim, strict=True
        ):
            if found.dim_value:
                ours.dim_value = found.dim_value
