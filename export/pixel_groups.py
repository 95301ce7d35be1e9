"""Narrow int8 convolutions, computed for several pixels of a row at once: the same sums, with more lanes at work.

    16 ─ Conv 3×3 ─▶ 16 channels a pixel                              a quarter of the 64 lanes of VNNI's kernel
    16 ─ Conv 3×4, stride 2 ─▶ 2 × 16 channels ─ Reshape ─▶ 16        half of them, for a third more products
     3 ─ Reshape ─▶ 4 × 3 ─ Conv 3×3 ─▶ 4 × 16 ─ Reshape ─▶ 16        all of them, and no windows to gather

A kernel for two pixels side by side holds the kernel for one twice, moved by a pixel, and zeros. What it gives is, in
memory, what two steps of the plain one give, so the Reshape copies nothing, and every answer is bit for bit the same.
Four pixels of three channels are likewise one of twelve: ONNX Runtime's own kernel for int8 wants channels by fours;
for any other number it gathers a matrix of windows first.

One thread of a Zen 5 core, µs of CPU time an image: 3 → 16 channels at 32 × 32 pixels 19.1 → 6.7, 16 → 16 14.0 → 12.0;
3 → 32 21.8 → 10.4. More pixels at once are not better: four of 16 channels cost more than two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, shape_inference

from export.graph import INPUT, add_constant, canonical, constants, consumers

LANES_WANTED: Final = 32  # output channels from which on a layer is left alone; 64 were slower than 32 for 16 → 16
CHANNELS_WANTED: Final = 4  # input channels of ONNX Runtime's int8 kernel come by so many
_LAYOUT: Final = ("Transpose", "Reshape")

Kernel = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution between a DequantizeLinear and a QuantizeLinear.

    Args:
        node: The convolution.
        parameters: The DequantizeLinear of its kernel and, if there is one, of its bias.
        quantize: The QuantizeLinear behind it.
        kernel: `int8[outputs, inputs, height, width]`.
        strides: By rows, by columns.
        pads: Above, left, below, right.
        size: Height and width of its output.
        input_size: Height and width of its input.
    """

    node: NodeProto
    parameters: Sequence[NodeProto]
    quantize: NodeProto
    kernel: Kernel
    strides: Sequence[int]
    pads: Sequence[int]
    size: Sequence[int]
    input_size: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Graph:
    sizes: dict[str, list[int]]  # of the values with channels: what comes after those
    producers: dict[str, NodeProto]
    users: dict[str, list[NodeProto]]


def group_pixels(quantized: ModelProto) -> ModelProto | None:
    """Rewrites the narrow convolutions of an int8 graph.

    Args:
        quantized: In the QDQ form; it is not changed.

    Returns:
        Another graph with the same answers, or None where there is nothing to rewrite.
    """
    model = ModelProto.FromString(quantized.SerializeToString())
    layers = _layers(model)
    users = consumers(model)
    changed = [_from_pixels(model, layer, users) or _from_features(model, layer) for layer in layers]
    if not any(changed):
        return None
    canonical(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _from_pixels(model: ModelProto, layer: _Layer, users: dict[str, list[NodeProto]]) -> bool:
    """Takes so many pixels of a row that their channels come by fours, as one; False where the layer takes no image."""
    layout = _only(users, INPUT)
    dequantize = _only(users, layout.output[0]) if layout is not None and layout.op_type in _LAYOUT else None
    if layout is None or dequantize is None or _only(users, dequantize.output[0]) is not layer.node:
        return False
    (height, width), inputs, stride = layer.input_size, layer.kernel.shape[1], layer.strides[1]
    taken = int(np.lcm(np.lcm(CHANNELS_WANTED, inputs) // inputs, stride))
    if inputs > CHANNELS_WANTED or taken == stride or width % taken or layer.size[1] * stride != width:
        return False
    kernel, (left, right) = _fold(_spread(layer.kernel, taken // stride, stride), layer.pads[1], taken)
    shape = add_constant(model, f"{layout.name}.grouped", np.array([-1, height, width // taken, taken * inputs]))
    front = [
        helper.make_node("Reshape", [INPUT, shape], [f"{layout.name}.pixels"]),
        helper.make_node("Transpose", [f"{layout.name}.pixels"], [layout.output[0]], perm=[0, 3, 1, 2]),
    ]
    model.graph.node.remove(layout)
    model.graph.node.extend(front)
    _replace(model, layer, kernel, 1, (layer.pads[0], left, layer.pads[2], right))
    return True


def _from_features(model: ModelProto, layer: _Layer) -> bool:
    """Gives several pixels of a row at once; False where the layer has outputs enough for one."""
    outputs, inputs = layer.kernel.shape[:2]
    pixels = LANES_WANTED // outputs
    if pixels < 2 or inputs % CHANNELS_WANTED or layer.size[1] % pixels:  # noqa: PLR2004 - one is what there is
        return False
    _replace(model, layer, _spread(layer.kernel, pixels, layer.strides[1]), pixels * layer.strides[1], layer.pads)
    return True


def _spread(kernel: Kernel, pixels: int, stride: int) -> Kernel:
    """The kernel of several neighbours: its copies are moved by a stride each, with zeros around."""
    outputs, inputs, height, width = kernel.shape
    spread = np.zeros((pixels, outputs, inputs, height, width + (pixels - 1) * stride), np.int8)
    for pixel in range(pixels):
        spread[pixel, ..., pixel * stride : pixel * stride + width] = kernel
    return spread.reshape(pixels * outputs, *spread.shape[2:])


def _fold(kernel: Kernel, pad_left: int, pixels: int) -> tuple[Kernel, tuple[int, int]]:
    """The kernel for an input of which several pixels are one; also its pads, left and right, in those."""
    outputs, inputs, height, width = kernel.shape
    before = -pad_left % pixels
    columns = -(-(before + width) // pixels)
    whole = np.pad(kernel, [(0, 0), (0, 0), (0, 0), (before, columns * pixels - before - width)])
    folded = whole.reshape(outputs, inputs, height, columns, pixels).transpose(0, 4, 1, 2, 3)
    left = -(-pad_left // pixels)
    return folded.reshape(outputs, pixels * inputs, height, columns), (left, columns - 1 - left)


def _replace(model: ModelProto, layer: _Layer, kernel: Kernel, stride: int, pads: Sequence[int]) -> None:
    name, outputs, known = layer.node.name, layer.kernel.shape[0], constants(model)
    copies = len(kernel) // outputs
    for dequantize in layer.parameters:
        for index, value in enumerate(dequantize.input):
            if known[value].ndim:  # a scale or zero point for all channels serves more of them
                repeated = np.concatenate([known[value]] * copies)
                dequantize.input[index] = add_constant(model, f"{dequantize.name}.{index}.grouped", repeated)
    layer.parameters[0].input[0] = add_constant(model, f"{name}.kernel.grouped", kernel)
    del layer.node.attribute[:]
    attributes = {"kernel_shape": kernel.shape[2:], "strides": (layer.strides[0], stride), "pads": pads}
    layer.node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    _ungroup(model, layer, outputs)


def _ungroup(model: ModelProto, layer: _Layer, outputs: int) -> None:
    # On bytes, behind the QuantizeLinear. ONNX Runtime computes in NHWC, where both transposes cancel.
    name, end = f"{layer.node.name}.grouped", layer.quantize.output[0]
    layer.quantize.output[0] = name
    shape = add_constant(model, f"{name}.shape", np.array([-1, *layer.size, outputs]))
    model.graph.node.extend(
        [
            helper.make_node("Transpose", [name], [f"{name}.nhwc"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}.nhwc", shape], [f"{name}.pixels"]),
            helper.make_node("Transpose", [f"{name}.pixels"], [end], perm=[0, 3, 1, 2]),
        ]
    )


def _layers(model: ModelProto) -> list[_Layer]:
    inferred = shape_inference.infer_shapes(model).graph.value_info
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:] for value in inferred}
    graph = _Graph(sizes, {name: node for node in model.graph.node for name in node.output}, consumers(model))
    found = [_layer(node, graph, constants(model)) for node in model.graph.node if node.op_type == "Conv"]
    return [layer for layer in found if layer is not None]


def _layer(node: NodeProto, graph: _Graph, known: dict[str, NDArray[np.generic]]) -> _Layer | None:
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    size, input_size = (graph.sizes.get(name, []) for name in (node.output[0], node.input[0]))
    quantize = _quantize_behind(node, graph.users)
    parameters = [graph.producers[name] for name in node.input[1:] if len(graph.users[name]) == 1 and name not in known]
    plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    own = len(parameters) == len(node.input) - 1 and all(name in known for one in parameters for name in one.input)
    if quantize is None or not plain or not own or 0 in (*size, *input_size) or len(size) != len(input_size):
        return None
    kernel, _, *zero_points = (known[name] for name in parameters[0].input)
    if kernel.ndim != 2 + len(size) or any(np.any(one) for one in zero_points):  # nothing but zeros may be padded with
        return None
    strides, pads = attributes.get("strides", [1, 1]), attributes.get("pads", [0, 0, 0, 0])
    return _Layer(node, parameters, quantize, kernel.astype(np.int8), strides, pads, size, input_size)


def _quantize_behind(node: NodeProto, users: dict[str, list[NodeProto]]) -> NodeProto | None:
    behind = _only(users, node.output[0])
    if behind is not None and behind.op_type == "Relu":
        behind = _only(users, behind.output[0])
    return behind if behind is not None and behind.op_type == "QuantizeLinear" else None


def _only(users: dict[str, list[NodeProto]], name: str) -> NodeProto | None:
    found = users.get(name, [])
    return found[0] if len(found) == 1 else None
