"""Convolutions as matrix products, for processors with AMX (Intel since Sapphire Rapids).

ONNX Runtime computes an int8 convolution in one of two ways, and the weights' zero point chooses:

    zero point 0      a kernel of its own, on VNNI's dot products: as fast as VNNI gets, and AMX is left alone
    any other         windows gathered into a matrix, and a matrix product, which uses AMX where there is one

So weights with a zero point of 1 instead of 0 (126 steps for the largest one instead of 127) reach AMX. On a Granite
Rapids core that takes the CIFAR-10 CNN's wide layers from 51 to 33 µs an image. Where a layer is narrow, gathering
costs more than it gains; elsewhere than on AMX, and in OpenVINO, such weights are slower. Hence a variant of its own,
beside int8 and not instead of it: a server measures both and serves the faster.
"""

from collections.abc import Collection
from typing import Any, Final

import numpy as np
from onnx import ModelProto

from export.graph import constants

# Measured on Granite Rapids: 32 → 64 channels gain 5 %, 64 → 128 two fifths, 128 → 256 half; 32 → 32 lose 7 %.
MIN_INPUTS, MIN_OUTPUTS = 32, 64
_ZERO_POINT: Final = 1
_LARGEST: Final = 127 - _ZERO_POINT


def wide_weights(prepared: ModelProto, layers: Collection[str]) -> list[str]:
    """Names the weights of the convolutions that are worth a matrix product.

    Args:
        prepared: From `quantize.prepare`.
        layers: Those that become int8.
    """
    known = constants(prepared)
    found = []
    for node in prepared.graph.node:
        weight = known.get(node.input[1]) if node.op_type == "Conv" and node.name in layers else None
        if weight is not None and weight.shape[0] >= MIN_OUTPUTS and weight.shape[1] >= MIN_INPUTS:
            found.append(node.input[1])
    return found


def overrides(prepared: ModelProto, weights: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Scale and zero point of each output channel of some weights, as ONNX Runtime's quantizer takes them.

    Args:
        prepared: From `quantize.prepare`.
        weights: Of `wide_weights`.
    """
    known = constants(prepared)
    return {name: [_channel(float(np.abs(channel).max())) for channel in known[name]] for name in weights}


def _channel(largest: float) -> dict[str, Any]:
    # A channel of zeros has no scale of its own, and any will do.
    scale = np.array(largest / _LARGEST if largest > 0 else 1.0, np.float32)
    return {"axis": 0, "scale": scale, "zero_point": np.array(_ZERO_POINT, np.int8)}
