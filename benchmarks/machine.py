"""What a result was measured on, for every JSON file of results."""

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

PACKAGES = ("aiohttp", "grpcio", "numpy", "onnxruntime", "uvloop")


def describe_machine() -> dict[str, str | int]:
    """Names the processor, the cores this process may use, and the versions that matter."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def spell_command() -> str:
    """The command line of this run, to be pasted into a shell.

    Of a path from the root only the last part is told, since no other machine has the rest.
    """
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", "benchmarks", *words])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
