"""float32 to int8: static quantization in the QDQ form, in the few ways that are worth trying.

                       ┌─ pixels-int8   uint8 pixels straight into the first DequantizeLinear
    float32 ─prepare─▶ ┤
                       └─ first-float   first layer left in float32, the rest int8

Activations are uint8, weights int8 with a scale for each output channel; on processors whose int8 products saturate
weights have 7 bits (`export.processor`). Two things differ from a plain
`quantize_static`, both measured on the 1.05 M-parameter CNN for CIFAR-10 (one thread, Zen 5):

- The last layer's output stays float32. Rounding logits to 8 bits only costs: agreement 97.5 % → 98.6 %.
- **The first layer decides the speed.** ONNX Runtime's int8 convolution over 3 channels takes 21.8 µs of 61 µs an
  image; in float32 it takes 8.8. Where that holds, leaving it in float32 gives 2.7 × instead of 2.2 × float32's
  throughput, and agreement 99.3 %. On other machines and models `pixels-int8` is faster, so export measures both and
  keeps the faster.
"""

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from export import amx, processor
from export.bias_correction import correct_biases
from export.graph import INPUT, PixelChain, add_constant, canonical, constants, consumers, pixel_chain
from export.pixel_groups import group_pixels
from export.quiet import noisy_library

PIXELS_INT8: Final = "pixels-int8"
FIRST_FLOAT: Final = "first-float"
PLAIN: Final = "plain"
METHODS: Final = ("minmax", "percentile", "entropy")

CALIBRATION_ROWS: Final = 50
HISTOGRAM_BYTES: Final = 512 * 2**20  # percentile and entropy keep every activation of every row in memory
LAYERS: Final = ("Conv", "Gemm", "MatMul", "ConvTranspose")
_BEFORE_ANSWER: Final = (*LAYERS, "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "MaxPool")
_FIRST_LAYER_FOLLOWERS: Final = ("Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "Sigmoid", "Mul", "Add")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantize.

    Args:
        method: How ranges are found: `minmax`, `percentile` or `entropy`.
        start: What happens to the pixels and the first layer: `pixels-int8`, `first-float` or `plain`.
        float_layers: Names of further layers that stay in float32, because they hurt.
        products: Whether wide convolutions become matrix products; see `export.amx`.
        tuned_epochs: For how long the weights were fine-tuned before; see `export.qat`.
        grouped: Whether narrow convolutions take several pixels at once; see `export.pixel_groups`.
    """

    method: str
    start: str
    float_layers: tuple[str, ...] = ()
    products: bool = False
    tuned_epochs: int = 0
    grouped: bool = False

    def __str__(self) -> str:
        kept = f", {' '.join(self.float_layers)} in float32" if self.float_layers else ""
        tuned = f", fine-tuned for {self.tuned_epochs} epochs" if self.tuned_epochs else ""
        ways = f"{', matrix products' if self.products else ''}{', pixels in groups' if self.grouped else ''}"
        return f"{self.start}, {self.method}{kept}{tuned}{ways}"


def prepare(model: ModelProto) -> ModelProto:
    """Infers shapes and fuses what ONNX Runtime would fuse (MatMul + Add → Gemm), as quantization needs it.

    Args:
        model: The float32 graph.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - heavy

    with tempfile.TemporaryDirectory() as folder, noisy_library():
        source, target = Path(folder) / "float32.onnx", Path(folder) / "prepared.onnx"
        onnx.save(model, source)  # a graph handed over in memory would be changed
        quant_pre_process(source, target)
        return onnx.load(target)


def starts(prepared: ModelProto, first_layer: str = "auto") -> tuple[str, ...]:
    """Lists the ways to start that this graph allows.

    Args:
        prepared: From `prepare`.
        first_layer: `int8`, `float32`, or `auto` for both. Where the first layer cannot stay in float32, int8 it is.
    """
    pixels = PIXELS_INT8 if _zero_point(pixel_chain(prepared)) is not None else PLAIN
    if not _first_layer(prepared):
        return (pixels,)
    return {"auto": (FIRST_FLOAT, pixels), "float32": (FIRST_FLOAT,), "int8": (pixels,)}[first_layer]


def layers(prepared: ModelProto, recipe: Recipe) -> list[str]:
    """Names the layers with weights that a recipe makes int8, first to last.

    Args:
        prepared: From `prepare`.
        recipe: Which.
    """
    float_layers = set(recipe.float_layers)
    if recipe.start == FIRST_FLOAT:
        float_layers |= {node.name for node in _first_layer(prepared)}
    return [node.name for node in prepared.graph.node if node.op_type in LAYERS and node.name not in float_layers]


def quantize(prepared: ModelProto, rows: NDArray[np.uint8], recipe: Recipe) -> ModelProto:
    """Quantizes by one recipe.

    Args:
        prepared: From `prepare`.
        rows: `uint8[n, h, w, c]` to find ranges with.
        recipe: One out of `METHODS` × `starts(prepared)`.

    Returns:
        A checked graph with the same input and output.
    """
    chain = pixel_chain(prepared)
    first = _first_layer(prepared) if recipe.start == FIRST_FLOAT else []
    answer = _answer(prepared)
    excluded = [*answer, *(chain.nodes if chain else ()), *(node.name for node in first), *recipe.float_layers]
    quantized = _quantize_static(prepared, _calibration(prepared, rows, recipe), recipe, excluded)
    if not recipe.tuned_epochs:  # tuned weights give what they should when they are rounded, and not as they are
        correct_biases(prepared, quantized, rows)
    _float_output(quantized, answer)
    if recipe.start == PIXELS_INT8 and chain:
        _pixels_to_first_layer(quantized, chain)
    if first and first[-1].op_type == "MaxPool":
        _keep_pool_in_float(quantized, first[-1].output[0])
    _keep_properties(prepared, canonical(quantized))
    onnx.checker.check_model(quantized, full_check=True)
    return (group_pixels(quantized) if recipe.grouped else None) or quantized


def _keep_properties(source: ModelProto, target: ModelProto) -> None:
    target.producer_name, target.producer_version = "shoal", ""
    kept = {entry.key: entry.value for entry in source.metadata_props if not entry.key.startswith("onnx")}
    del target.metadata_props[:]
    helper.set_model_props(target, dict(sorted(kept.items())))


def _quantize_static(model: ModelProto, rows: NDArray[np.uint8], recipe: Recipe, excluded: list[str]) -> ModelProto:
    from onnxruntime import quantization as ort_quantization  # noqa: PLC0415 - heavy

    kinds = ort_quantization.QuantType
    known = ort_quantization.CalibrationMethod
    methods = {"minmax": known.MinMax, "percentile": known.Percentile, "entropy": known.Entropy}
    overrides = _pixel_override(pixel_chain(model)) if recipe.start == PIXELS_INT8 else {}
    if recipe.products:
        overrides |= amx.overrides(model, amx.wide_weights(model, layers(model, recipe)))
    with tempfile.TemporaryDirectory() as folder, noisy_library(), _quiet_logging():
        source, target = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # a graph handed over in memory would be changed
        ort_quantization.quantize_static(
            source,
            target,
            _Reader(rows),
            quant_format=ort_quantization.QuantFormat.QDQ,
            activation_type=kinds.QUInt8,
            weight_type=kinds.QInt8,
            per_channel=True,
            reduce_range=processor.saturates(),
            nodes_to_exclude=excluded,
            calibrate_method=methods[recipe.method],
            calibration_providers=["CPUExecutionProvider"],
            extra_options={"TensorQuantOverrides": overrides} if overrides else {},
        )
        return onnx.load(target)


class _Reader:
    """ONNX Runtime's `CalibrationDataReader`, which it checks for by methods."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        size = min(CALIBRATION_ROWS, len(rows))
        # Whole batches only: the histogram methods stack them.
        self._batches = iter([rows[at : at + size] for at in range(0, len(rows) - size + 1, size)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    # The quantizer warns on the root logger about what is meant here, such as a graph that was prepared in memory.
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _calibration(model: ModelProto, rows: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.uint8]:
    if recipe.method == "minmax":
        return rows
    floats = sum(
        int(np.prod([dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]))
        for value in model.graph.value_info
    )
    return rows[: max(16, HISTOGRAM_BYTES // max(1, 4 * floats))]


def _zero_point(chain: PixelChain | None) -> int | None:
    # pixel × scale + offset = scale × (pixel − zero point) is exact only for a whole zero point.
    if chain is None or not chain.casts or chain.scale <= 0:
        return None
    zero_point = -chain.offset / chain.scale
    whole = round(zero_point)
    return whole if abs(zero_point - whole) < 1e-4 and 0 <= whole <= 255 else None  # noqa: PLR2004 - 1/255 in float32


def _pixel_override(chain: PixelChain | None) -> dict[str, Any]:
    zero_point = _zero_point(chain)
    if chain is None or zero_point is None:
        return {}
    exact = {"scale": np.array(chain.scale, np.float32), "zero_point": np.array(zero_point, np.uint8)}
    return {chain.output: [exact]}


def _pixels_to_first_layer(quantized: ModelProto, chain: PixelChain) -> None:
    """Feeds the uint8 pixels to the DequantizeLinear that took their scaled and requantized copy."""
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] == chain.output:
            _replace_value(quantized, node.output[0], chain.source)


def _answer(model: ModelProto) -> list[str]:
    """Names what comes after the last layer: a softmax, or what stands for one, such as a sigmoid and 1 − p."""
    producers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, None] = {}
    waiting = [value.name for value in model.graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.op_type not in _BEFORE_ANSWER and node.name not in found:
            found[node.name] = None
            waiting.extend(node.input)
    return list(found)


def _float_output(quantized: ModelProto, answer: Collection[str]) -> None:
    """Removes the QuantizeLinear and DequantizeLinear between the last layer and what makes probabilities of it."""
    producers = {name: node for node in quantized.graph.node for name in node.output}
    for node in quantized.graph.node:
        for index, name in enumerate(node.input if node.name in answer else ()):
            dequantize = producers.get(name)
            quantize_linear = producers.get(dequantize.input[0]) if dequantize is not None else None
            if quantize_linear is not None and quantize_linear.op_type == "QuantizeLinear":
                node.input[index] = quantize_linear.input[0]


def _keep_pool_in_float(quantized: ModelProto, pooled: str) -> None:
    """Stops ONNX Runtime from moving the first QuantizeLinear in front of a float MaxPool.

    It moves a QuantizeLinear backwards through a MaxPool, whose uint8 form in NCHW then takes 73 µs of 126 µs an image.
    A multiplication by 2 in between, exact and undone by a doubled scale, takes 0.7 µs and keeps the pool in float.
    """
    known = constants(quantized)
    for node in list(consumers(quantized).get(pooled, ())):
        if node.op_type != "QuantizeLinear":
            return
        doubled = f"{pooled}.doubled"
        scale = add_constant(quantized, f"{doubled}.scale", (known[node.input[1]] * 2).astype(np.float32))
        two = add_constant(quantized, f"{doubled}.factor", np.float32(2))
        at = list(quantized.graph.node).index(node)
        node.input[0], node.input[1] = doubled, scale
        quantized.graph.node.insert(at, helper.make_node("Mul", [pooled, two], [doubled], name=doubled))
        return


def _replace_value(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _first_layer(model: ModelProto) -> list[NodeProto]:
    """The first convolution and what follows it up to the next layer, where it is worth leaving in float."""
    chain = pixel_chain(model)
    users, known = consumers(model), constants(model)
    value = chain.output if chain else INPUT
    nodes: list[NodeProto] = []
    while len(users.get(value, ())) == 1:
        node = users[value][0]
        starting = not nodes and node.op_type == "Conv" and known[node.input[1]].shape[1] <= 4  # noqa: PLR2004 - pixels
        constant_operands = all(name in known for name in node.input if name and name != value)
        if not starting and not (nodes and node.op_type in _FIRST_LAYER_FOLLOWERS and constant_operands):
            break
        nodes.append(node)
        value = node.output[0]
    rest = {node.name for node in model.graph.node if node.op_type in LAYERS} - {node.name for node in nodes}
    return nodes if rest else []
