"""Starts Triton's own server program, out of nvidia-pytriton's wheel, with the model behind its Python backend.

The wheel has no ONNX Runtime backend: Triton's core speaks HTTP and gRPC, queues and makes batches, and a Python
process for each core runs ONNX Runtime as every other peer does.
"""

import argparse
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytriton  # type: ignore[import-not-found]  # not installed where types are checked

from benchmarks.peers.classifier import Classifier

MODEL = "classifier"
CONFIG = """\
name: "classifier"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "image" data_type: {datatype} dims: [ {dims} ] }} ]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
instance_group [ {{ count: {count} kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: {wait_us} }}
"""


def link_backend(folder: Path, home: Path) -> None:
    """Lays out the Python backend with the stub of this Python beside it, which the wheel keeps apart."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "python").mkdir(parents=True)
    for file in (home / "backends" / "python").iterdir():
        (folder / "python" / file.name).symlink_to(file)
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    (folder / "python" / stub.name).symlink_to(stub)


def write_repository(folder: Path) -> None:
    """Writes the model's folder as Triton reads it."""
    import numpy as np  # noqa: PLC0415

    classifier = Classifier()
    pictures = os.environ["PEER_PAYLOAD"] == "picture"
    home = folder / MODEL
    (home / "1").mkdir(parents=True)
    # The backend's stub is a program with Python inside that knows neither this environment nor PYTHONPATH.
    here = [str(Path.cwd()), sysconfig.get_path("purelib")]
    (home / "1" / "model.py").write_text(
        f"import sys\nsys.path[:0] = {here}\nfrom benchmarks.peers.triton_model import TritonPythonModel\n"
    )
    (home / "config.pbtxt").write_text(
        CONFIG.format(
            batch=os.environ["PEER_BATCH"],
            datatype="TYPE_STRING" if pictures else "TYPE_UINT8",
            dims="1" if pictures else ", ".join(map(str, classifier.shape)),
            classes=classifier.probabilities(np.zeros((1, *classifier.shape), np.uint8)).shape[1],
            count=len(os.sched_getaffinity(0)),
            wait_us=int(os.environ["PEER_WAIT_MS"]) * 1000,
        )
    )


def main() -> None:
    """Replaces this process by Triton's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    arguments = parser.parse_args()
    home = Path(pytriton.__file__).parent / "tritonserver"
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("PEER_FOLDER")))
    link_backend(folder / "backends", home)
    write_repository(folder / "models")
    bundled = home.parents[1] / "nvidia_pytriton.libs"
    libraries = [str(bundled), str(sysconfig.get_config_var("LIBDIR")), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    program = str(home / "bin" / "tritonserver")
    flags = {
        "model-repository": folder / "models",
        "backend-directory": folder / "backends",
        "http-port": arguments.port,
        "grpc-port": arguments.grpc_port,
        "http-address": "127.0.0.1",
        "grpc-address": "127.0.0.1",
        "allow-metrics": "false",
        "log-verbose": 0,
    }
    os.execv(program, [program, *(f"--{name}={value}" for name, value in flags.items())])  # noqa: S606


if __name__ == "__main__":
    main()
