"""Photographs decoded, resized and classified in a loop on one core, with the server's own decoder and no server.

    python -m benchmarks.photo_limit build/photos/models/photos/1/model.int8.onnx data/photos --seconds 3

Prints one JSON object: images per second, CPU time for each in microseconds, and how much of it decoding takes.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from server.images import ImageSpec, decode


def main() -> None:
    """Runs the loop that the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photo_limit", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("graph", type=Path, help="an ONNX file with one uint8 image input")
    parser.add_argument("photos", type=Path, help="a folder of pictures")
    parser.add_argument("--rows", type=int, default=1, help="images in a batch (default: 1)")
    parser.add_argument("--seconds", type=float, default=3, help="how long (default: 3)")
    arguments = parser.parse_args()
    print(json.dumps(_measure(arguments.graph, arguments.photos, arguments.rows, arguments.seconds)))


def _measure(graph: Path, photos: Path, rows: int, seconds: float) -> dict[str, float]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415  after its telemetry is off

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    spec = ImageSpec(*entry.shape[1:])
    files = [file.read_bytes() for file in sorted(photos.iterdir()) if file.suffix.lower() in {".jpg", ".jpeg"}]
    images, decode_s, cpu_s, started_s = 0, 0.0, time.process_time(), time.monotonic()
    while time.monotonic() < started_s + seconds:
        batch = [files[(images + row) % len(files)] for row in range(rows)]
        before_s = time.process_time()
        pixels = np.stack([decode(file, spec) for file in batch])
        decode_s += time.process_time() - before_s
        session.run(None, {entry.name: pixels})
        images += rows
    took_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    return {
        "per_s": images / took_s,
        "cpu_us": cpu_s / images * 1e6,
        "decode_us": decode_s / images * 1e6,
    }


if __name__ == "__main__":
    main()
