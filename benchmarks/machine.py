"""What a result was measured on, for every JSON file of results."""

import importlib.metadata
import os
import platform
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


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
