"""ONNX Runtime alone, in a loop, on one core: what no server around it can exceed.

    python -m benchmarks.bare_engine models/digits/1/model.int8.onnx --rows 32 --seconds 3

Prints one JSON object: images per second, and CPU time for each in microseconds.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Runs the loop that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_engine", description=__doc__)
    parser.add_argument("graph", type=Path, help="an ONNX file with one uint8 image input")
    parser.add_argument("--rows", type=int, default=1, help="images in a batch (default: 1)")
    parser.add_argument("--seconds", type=float, default=3, help="how long (default: 3)")
    arguments = parser.parse_args()
    print(json.dumps(_measure(arguments.graph, arguments.rows, arguments.seconds)))


def _measure(graph: Path, rows: int, seconds: float) -> dict[str, float]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415  after its telemetry is off

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    pixels = np.random.default_rng(0).integers(0, 256, (rows, *entry.shape[1:]), np.uint8)
    feed = {entry.name: pixels}
    for _ in range(5):
        session.run(None, feed)
    images, cpu_s, end_s = 0, time.process_time(), time.monotonic() + seconds
    started_s = time.monotonic()
    while time.monotonic() < end_s:
        session.run(None, feed)
        images += rows
    took_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    return {"per_s": images / took_s, "cpu_us": cpu_s / images * 1e6}


if __name__ == "__main__":
    main()
