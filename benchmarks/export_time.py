"""`python -m benchmarks export-time`: how long an export with its verification takes, and how much memory.

    run folder ─▶ a copy with --rows hold-out rows ─▶ python -m export create ─▶ wall and CPU time, peak memory

Missing rows are repeated from the first on, which costs what other rows would. The process has --cores cores at most.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.resilience import Verdict, finish

WITHIN_S: Final = 60.0
WITHIN_BYTES: Final = 2 * 10**9
MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024
NAME: Final = "timed"
STAGE: Final = re.compile(r"^([\w -]+): ([\d.]+) s$", re.MULTILINE)
EXAMPLES: Final = """\
example:
  python -m benchmarks export-time --run runs/cifar10/1 --rows 10000 --out export-time.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--run", type=Path, required=True, help="a run's folder, <runs>/<name>/<number>")
    parser.add_argument("--rows", type=int, default=10_000, help="to verify on (default: 10000)")
    parser.add_argument("--cores", type=int, default=2, help="that the export may use (default: 2)")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")


def run_command(arguments: argparse.Namespace) -> int:
    """Exports a run once; see the module."""
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        own_rows = copy_run(arguments.run, runs / NAME / "1", arguments.rows)
        cost = _export(runs, Path(folder) / "models", cores)
    verdict.figures |= {"rows": arguments.rows, "own_rows": own_rows, "cores": len(cores), **cost}
    verdict.require(f"export with {arguments.rows} rows, s", cost["wall_s"], WITHIN_S)
    verdict.require("peak memory, bytes", cost["peak_memory_bytes"], WITHIN_BYTES)
    return finish(arguments, verdict)


def copy_run(source: Path, target: Path, rows: int) -> int:
    """Copies a run folder with another number of hold-out rows.

    Args:
        source: A run's folder.
        target: A new folder.
        rows: How many; what is missing is repeated from the first on.

    Returns:
        How many rows the run itself has.
    """
    shutil.copytree(source, target)
    with np.load(source / "holdout.npz") as arrays:
        kept = dict(arrays)
    chosen = np.arange(rows) % len(kept["labels"])
    np.savez_compressed(target / "holdout.npz", rows=kept["rows"][chosen], labels=kept["labels"][chosen])
    return len(kept["labels"])


def _export(runs: Path, models: Path, cores: list[int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "export", "create", "--name", NAME, "--runs", str(runs), "--models", str(models)]
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=partial(os.sched_setaffinity, 0, cores)
    )
    wall_s, after = time.monotonic() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(ended.stdout)
    return {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_memory_bytes": after.ru_maxrss * MAXRSS_BYTES,  # of the largest child, and there is only one
        "stages_s": {name: float(seconds) for name, seconds in STAGE.findall(ended.stdout)},
    }
