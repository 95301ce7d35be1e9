"""`python -m benchmarks footprint`: what a server takes before it has answered anything, and what a worker more costs.

start ──▶ ready: seconds; after load: memory (PSS, shared pages divided) of all its processes
          └ not the first: it writes bytecode where the installer left none, which pip and the images do
1 worker, 2 workers ── by turns, each on as many cores ─▶ CPU time of a request
"""

import argparse
import os
import statistics
import time
from typing import Any, Final

from benchmarks.closed import Taken, prepare, take
from benchmarks.payloads import Target
from benchmarks.pictures import Pictures, golden_pictures, newest_bundle
from benchmarks.processes import family_pss_bytes, worker_pids
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.server_process import Address, serve

MB: Final = 1e6
EXAMPLES: Final = """\
examples:
  python -m benchmarks footprint --models models --out footprint.json     about 2 minutes
  python -m benchmarks footprint --starts 1 --rounds 1 --seconds 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--starts", type=int, default=5, help="how often a server is started (default: 5)")
    parser.add_argument("--column", default="binary", help="png, jpeg, json or binary (default: binary)")
    parser.add_argument("--connections", type=int, default=32, help="for each worker (default: 32)")
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, by turns (default: 5)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures the start, the memory and the cost of a second worker; see the module."""
    verdict = Verdict()
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    flags = ["--variant", "int8", *arguments.server_args.split()]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start would measure Python's compiler
    ready = [_ready_s(arguments, flags) for _ in range(arguments.starts + 1)][1:]
    with (
        serve(arguments.models, [*flags, "--workers", "1"]) as one,
        serve(arguments.models, [*flags, "--workers", "2"]) as two,
    ):
        run(_measure({1: one, 2: two}, pictures, arguments, verdict))
    verdict.figures["ready_s"] = ready
    verdict.require("ready after, s", round(statistics.median(ready), 2), 1.5)
    return finish(arguments, verdict)


def _ready_s(arguments: argparse.Namespace, flags: list[str]) -> float:
    started_s = time.monotonic()
    with serve(arguments.models, [*flags, "--workers", "2"]):
        return time.monotonic() - started_s


async def _measure(
    addresses: dict[int, Address], pictures: Pictures, arguments: argparse.Namespace, verdict: Verdict
) -> None:
    targets = {n: Target(a.http, a.grpc, a.pid, "shoal", pictures.model) for n, a in addresses.items()}
    asked = {n: await prepare(target, pictures, arguments.column) for n, target in targets.items()}
    taken: dict[int, list[Taken]] = {n: [] for n in targets}
    for number in range(arguments.rounds + 1):
        for n, target in targets.items():
            sample = await take(target, asked[n], n * arguments.connections, arguments.seconds)
            if number:  # the first round warms up
                taken[n].append(sample)
    dearer = [two.cpu_us / one.cpu_us for one, two in zip(taken[1], taken[2], strict=True)]
    pid = addresses[2].pid
    verdict.figures |= {
        "cpu_us": {str(n): statistics.median(sample.cpu_us for sample in samples) for n, samples in taken.items()},
        "dearer": dearer,
        "pss_mb": _memory_mb(pid),
    }
    verdict.require("CPU time of a request with 2 workers, times 1", round(statistics.median(dearer), 3), 1.05)
    verdict.require("memory after load, 2 workers, MB (PSS)", round(verdict.figures["pss_mb"]["all"], 1), 220)


def _memory_mb(pid: int) -> dict[str, Any]:
    workers = [family_pss_bytes(child) / MB for child in worker_pids(pid)]
    return {"all": family_pss_bytes(pid) / MB, "children": workers}
