"""Writes `model.explain.onnx`, the class-activation map, and checks it as the variants are checked."""

from typing import Final

import numpy as np
from onnx import ModelProto

from export import bundle, verify
from export.activation_map import MAP, add_activation_map, difference_from_probabilities, find_head, map_shape
from export.exporter import Exporter, stage_timer
from export.graph import INPUT, OUTPUT
from export.manifest import file_entry
from protos import bundle_pb2

EXPLAIN: Final = "explain"
FILE: Final = "model.explain.onnx"
METHOD: Final = "cam"
CHECKED_ROWS: Final = 256


def write_explanation(exporter: Exporter, stage: bundle.Staging, float32: ModelProto) -> bundle_pb2.Explanation | None:
    """Writes the graph with the class-activation map, if the network has one and it adds up.

    Args:
        exporter: The export.
        stage: The bundle being written.
        float32: The verified graph.

    Returns:
        What the manifest says of it; None where there is none.
    """
    head = find_head(float32)
    if head is None:
        exporter.say("  no class-activation map: the network does not end in global average pooling, dense, softmax")
        return None
    with stage_timer(exporter.say, "class-activation map"):
        explained = add_activation_map(float32, head)
        path = stage.write(FILE, explained.SerializeToString())
        session = verify.open_session(path.read_bytes())
        rows = exporter.holdout.pixels[:CHECKED_ROWS]
        probabilities, maps = session.run([OUTPUT, MAP], {INPUT: rows})
        reference = exporter.reference[: len(rows)]
        difference = max(float(np.abs(probabilities - reference).max()), difference_from_probabilities(maps, reference))
    limit = exporter.gates.max_difference
    if not difference <= limit:
        reason = f"difference of a map's sum from Keras: expected at most {limit:.6g}, received {difference:.6g}"
        exporter.say(f"  {EXPLAIN}: {reason}")
        exporter.refusals[EXPLAIN] = [reason]
        path.unlink()
        return None
    output = bundle_pb2.Tensor(name=MAP, datatype="FP32", shape=map_shape(explained))
    return bundle_pb2.Explanation(graph=file_entry(path), method=METHOD, output=output)
