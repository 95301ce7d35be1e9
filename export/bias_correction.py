"""Rounded weights shift what a layer gives by the same amount everywhere: the bias takes it back.

    float32 graph ──calibration rows──▶ mean of each layer's input channels ─┐
    kernel − rounded kernel ─────────────────────────────────────────────────┴──product──▶ added to the int32 bias

Rounding errors times inputs whose mean is not 0, as that of pixels and of what leaves a Relu, do not cancel out
(Nagel et al. 2019, arXiv:1906.04721, section 4.2). It costs nothing at inference. On 8,000 rows the CIFAR-10 CNN, first
layer in int8, agrees with Keras on 99.35 % instead of 98.49 % of the rows.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export import verify
from export.graph import INPUT, constants

BATCH_ROWS: Final = 50
_CORRECTED: Final = ("Conv", "Gemm")

Values = dict[str, NDArray[Any]]


def correct_biases(prepared: ModelProto, quantized: ModelProto, rows: NDArray[np.uint8]) -> None:
    """Corrects the biases of a quantized graph, in place.

    Args:
        prepared: The float32 graph that it was made of.
        quantized: In the QDQ form, with the nodes' names of that graph.
        rows: `uint8[n, h, w, c]` of the calibration rows.
    """
    float_layers = {node.name: node for node in prepared.graph.node if node.op_type in _CORRECTED}
    if not float_layers:  # such as one dense layer, which is a MatMul: ONNX Runtime refuses to run for no output
        return
    means = _input_means(prepared, list(dict.fromkeys(node.input[0] for node in float_layers.values())), rows)
    weights: Values = constants(prepared)
    known: Values = constants(quantized)
    producers = {name: node for node in quantized.graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    for node in quantized.graph.node:
        source = float_layers.get(node.name)
        made = [producers[name] for name in node.input[1:] if name in producers]
        parameters = [one for one in made if all(name in known for name in one.input)]
        if source is None or source.input[1] not in weights or len(parameters) < 2:  # noqa: PLR2004 - kernel and bias
            continue  # left in float, computed, or without a bias
        kernel, bias = parameters
        error = weights[source.input[1]] - _dequantized(kernel, known)
        shift = _shift(source, error, means[source.input[0]]) / known[bias.input[1]]
        corrected = known[bias.input[0]] + np.round(shift).astype(np.int32)
        tensors[bias.input[0]].CopyFrom(numpy_helper.from_array(corrected, bias.input[0]))


def _input_means(prepared: ModelProto, names: list[str], rows: NDArray[np.uint8]) -> Values:
    """The mean of each channel, over rows and places, of some values of a graph."""
    model = ModelProto.FromString(prepared.SerializeToString())
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = verify.open_session(model.SerializeToString())
    sums: Values = {}
    for at in range(0, len(rows), BATCH_ROWS):
        for name, value in zip(names, session.run(names, {INPUT: rows[at : at + BATCH_ROWS]}), strict=True):
            places = tuple(range(2, value.ndim))
            sums[name] = sums.get(name, 0.0) + value.mean(places, dtype=np.float64).sum(0)
    return {name: total / len(rows) for name, total in sums.items()}


def _dequantized(node: NodeProto, known: Values) -> NDArray[np.float32]:
    values, scale, *zero_point = (known[name] for name in node.input)
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
    shape = [-1 if place == axis else 1 for place in range(values.ndim)] if scale.ndim else []
    offset = zero_point[0].astype(np.float32).reshape(shape) if zero_point else np.float32(0)
    return np.asarray((values.astype(np.float32) - offset) * scale.reshape(shape), np.float32)


def _shift(layer: NodeProto, error: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """What an error of the weights adds to each output channel."""
    attributes = {one.name: helper.get_attribute_value(one) for one in layer.attribute}
    if layer.op_type == "Gemm":
        return np.asarray(means @ (error.T if attributes.get("transB") else error))
    groups = attributes.get("group", 1)
    seen = np.repeat(means.reshape(groups, -1), len(error) // groups, axis=0)  # by each output, of its own inputs
    return np.asarray((error.sum(tuple(range(2, error.ndim))) * seen).sum(1))
