"""`python -m benchmarks export-speed`: what each graph of a bundle costs, one thread, at several batch sizes.

    model.onnx, model.int8.onnx, … ─▶ a session on ONNX Runtime's own kernels, and on OpenVINO where it is installed
                                        └─ in turns, so that whatever else the machine does hits all of them

The figures are CPU time of the whole process, an image, as the median over the rounds.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.resilience import Verdict, add_common_arguments, finish

OPENVINO: Final = "OpenVINOExecutionProvider"
PLUGIN: Final = "onnxruntime_ep_openvino"
BATCHES: Final = (1, 8, 16, 32)
IMAGES_A_ROUND: Final = 96
REFERENCE: Final = "float32 on cpu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--bundle", type=Path, required=True, help="a version's folder, <models>/<name>/<version>")
    parser.add_argument("--rounds", type=int, default=15, help="of each graph and batch size (default: 15)")
    parser.add_argument(
        "--at-least", type=float, default=2.7, help="fastest quantized graph at 16 rows, times float32 (default: 2.7)"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Measures every graph; see the module."""
    sessions = dict(_sessions(arguments.bundle))
    verdict = Verdict()
    for batch in BATCHES:
        costs_us = measured(sessions, batch, arguments.rounds)
        verdict.figures[f"batch {batch}"] = {
            name: {"us_per_image": round(cost, 1), "times_float32": round(costs_us[REFERENCE] / cost, 2)}
            for name, cost in costs_us.items()
        }
        print(f"batch {batch:2}: " + "  ".join(f"{name} {cost:.0f} µs" for name, cost in costs_us.items()))
    at_16 = {name: one["times_float32"] for name, one in verdict.figures["batch 16"].items() if "int8" in name}
    if at_16:
        fastest = max(at_16, key=at_16.__getitem__)
        verdict.require(f"{fastest}, 16 rows: × float32", at_16[fastest], arguments.at_least, at_least=True)
    return finish(arguments, verdict)


def measured(sessions: dict[str, Any], batch: int, rounds: int) -> dict[str, float]:
    """Times all sessions in turns.

    Args:
        sessions: By name.
        batch: Rows of a call.
        rounds: Turns of each.

    Returns:
        Microseconds of CPU time an image.
    """
    costs_us: dict[str, list[float]] = {name: [] for name in sessions}
    feeds = {name: _feed(session, batch) for name, session in sessions.items()}
    calls = max(1, IMAGES_A_ROUND // batch)
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            before_s = time.process_time()
            for _ in range(calls):
                session.run(None, feeds[name])
            if turn:  # the first one allocates
                costs_us[name].append((time.process_time() - before_s) / calls / batch * 1e6)
    return {name: statistics.median(costs) for name, costs in costs_us.items()}


def _sessions(bundle: Path) -> list[tuple[str, Any]]:
    ort = importlib.import_module("onnxruntime")
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = {variant["name"]: bundle / variant["file"] for variant in manifest["variants"]}
    own = [
        (f"{name} on cpu", ort.InferenceSession(path, _options(ort), providers=["CPUExecutionProvider"]))
        for name, path in files.items()
    ]
    if importlib.util.find_spec(PLUGIN) is None:
        return own
    ort.register_execution_provider_library(OPENVINO, importlib.import_module(PLUGIN).get_library_path())
    devices = [one for one in ort.get_ep_devices() if one.ep_name == OPENVINO]  # none but on Intel's processors
    theirs = files.items() if devices else ()
    return own + [(f"{name} on openvino", _on_openvino(ort, path, devices[0])) for name, path in theirs]


def _options(ort: Any) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _on_openvino(ort: Any, path: Path, device: Any) -> Any:
    options = _options(ort)
    config = {
        "INFERENCE_NUM_THREADS": "1",
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_PRECISION_HINT": "f32",
    }  # as the server asks for
    options.add_provider_for_devices([device], {"load_config": json.dumps({"CPU": config})})
    return ort.InferenceSession(path, options)


def _feed(session: Any, batch: int) -> dict[str, Any]:
    (image,) = session.get_inputs()
    return {image.name: np.random.default_rng(0).integers(0, 256, (batch, *image.shape[1:]), dtype=np.uint8)}
