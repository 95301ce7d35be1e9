"""The float16 variant, for GPUs: half the bytes and, on tensor cores, a multiple of the arithmetic.

float32 graph ──ONNX Runtime's converter──▶ the same graph in float16, uint8 pixels in, float32 probabilities out

On a CPU it is slower than float32 (ONNX Runtime casts around every operator), so it is not made unless asked for, and a
server that picks the fastest variant passes over it there.
"""

from typing import Final

import onnx
from onnx import ModelProto

from export import bundle
from export.exporter import Exporter
from export.graph import OUTPUT, canonical
from export.manifest import Written
from export.quiet import noisy_library
from export.settings import FLOAT16

KEPT_IN_FLOAT32: Final = ("Softmax",)  # an exponential of a logit above 11 does not fit


def write_float16(exporter: Exporter, stage: bundle.Staging, float32: ModelProto) -> list[Written]:
    """Writes the float16 variant, if it passes.

    Args:
        exporter: The export.
        stage: The bundle being written.
        float32: The verified graph.
    """
    return exporter.write(stage, FLOAT16, to_float16(float32).SerializeToString(), "weights and arithmetic in float16")


def to_float16(model: ModelProto) -> ModelProto:
    """Converts a graph to float16.

    Args:
        model: The float32 graph; it is not changed.

    Returns:
        A checked graph with the same input and output.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - heavy

    copy = ModelProto.FromString(model.SerializeToString())
    with noisy_library():
        half: ModelProto = convert_float_to_float16(copy, keep_io_types=True, op_block_list=list(KEPT_IN_FLOAT32))
    _answer_in_float32(half)
    canonical(half)
    onnx.checker.check_model(half, full_check=True)
    return half


def _answer_in_float32(half: ModelProto) -> None:
    # The converter rounds the float32 softmax to float16 and widens it again: both casts only lose digits.
    producers = {name: node for node in half.graph.node for name in node.output}
    widen = producers[OUTPUT]
    narrow = producers.get(widen.input[0])
    softmax = producers.get(narrow.input[0]) if narrow is not None else None
    if softmax is not None and softmax.op_type in KEPT_IN_FLOAT32:
        softmax.output[0], widen.output[0] = OUTPUT, f"{OUTPUT}.unused"
        half.graph.node.remove(widen)
        if narrow is not None:
            half.graph.node.remove(narrow)
