"""Compiles requirements/*.txt from pyproject.toml: hashes, no index lines, every environment at the same versions.

all.txt       everything, for `make setup` on CPU
serve.txt     serving on CPU, for `make serve` and Dockerfile.serve
serve-gpu.txt, serve-openvino.txt
clients.txt   other people's clients, for the tests, in an environment of their own
tfserving.txt TensorFlow Serving's stubs, for the tests, without dependencies
train.txt     training and export, for Dockerfile.train
uv.txt        what installs all the others
peers.txt     other servers, for make bench-peers; peers-*.txt those that need an environment of their own
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILE = [
    sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--universal",
    "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header",
]  # fmt: skip
# An operator may turn the prediction log on without installing anything.
KEPT = ["--extra", "predictions", "--extra", "postgres", "--extra", "traces"]
SETS = {
    "all": ["--extra", "cpu", "--extra", "openvino", "--group", "training", "--group", "dev"],
    "serve": ["--extra", "cpu", *KEPT],
    "serve-gpu": ["--extra", "gpu", "--extra", "gpu-metrics", *KEPT],
    "serve-openvino": ["--extra", "openvino", *KEPT],
    "train": ["--extra", "cpu", "--extra", "postgres", "--group", "training"],
    "train-gpu": ["--extra", "cpu", "--extra", "postgres", "--group", "training-gpu"],
    "jupyter": ["--extra", "cpu", "--group", "training", "--group", "jupyter"],
}
PEERS = ["peers", "peers-triton", "peers-ray", "peers-mlserver"]
FURTHER: dict[str, list[str]] = {
    "clients": [],
    "tfserving": ["--no-deps"],
    "uv": ["--constraint", "requirements/all.txt"],
    **{name: [] for name in PEERS},
}


def main() -> None:
    """Compiles each set; all but the first are held to the first one's versions."""
    for name, wanted in SETS.items():
        target = f"requirements/{name}.txt"
        held = [] if name == "all" else ["--constraint", "requirements/all.txt"]
        upgrade = ["--upgrade"] if "--upgrade" in sys.argv else []
        subprocess.run([*COMPILE, *wanted, *held, *upgrade, "--output-file", target], check=True, cwd=ROOT)
        print(f"wrote {target}")
    for name, further in FURTHER.items():
        command = [*COMPILE, *further, f"requirements/{name}.in", "--output-file", f"requirements/{name}.txt"]
        command.remove("pyproject.toml")
        subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
