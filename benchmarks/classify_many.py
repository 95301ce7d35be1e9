"""`python -m benchmarks classify-many`: the client package's pictures per second, as a share of the most by raw stubs.

Every way is a process of its own on the same server, and all take turns, several rounds long. The peak of a round is
that of its fastest raw way; a ratio is taken within its round, because a machine's speed drifts between them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.classify_many_ways import OURS, RAW
from benchmarks.processes import family_cpu_s
from benchmarks.resilience import Verdict, add_common_arguments, finish
from benchmarks.server_process import Address, serve

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--count", type=int, default=5000, help="pictures for each way and round (default: 5000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")


def run_command(arguments: argparse.Namespace) -> int:
    """Takes turns; see the module."""
    verdict = Verdict()
    with serve(arguments.models, arguments.server_args.split()) as address:
        rounds = [_measure_round(arguments, address) for _ in range(arguments.rounds)]
    verdict.figures["rounds"] = rounds
    for way in (*RAW, *OURS):
        rate = statistics.median(one[way]["per_s"] for one in rounds)
        client_us, server_us = (
            statistics.median(one[way][key] for one in rounds) for key in ("cpu_us", "server_cpu_us")
        )
        print(f"{way}: {rate:,.0f} per s; CPU for each: client {client_us:.0f} µs, server {server_us:.0f} µs")
    peaks = [max(one[way]["per_s"] for way in RAW) for one in rounds]
    for way in OURS:
        ratio = statistics.median(one[way]["per_s"] / peak for one, peak in zip(rounds, peaks, strict=True))
        verdict.require(f"classify_many, {way}: share of the peak", round(ratio, 3), 0.8, at_least=True)
    verdict.require("failed or wrong", sum(one[way]["failed"] for one in rounds for way in one), 0)
    return finish(arguments, verdict)


def _measure_round(arguments: argparse.Namespace, address: Address) -> dict[str, Any]:
    return {way: _measure_way(way, arguments, address) for way in (*RAW, *OURS)}


def _measure_way(way: str, arguments: argparse.Namespace, address: Address) -> Any:
    command = [sys.executable, "-m", "benchmarks.classify_many_ways", way, "--target", address.grpc]
    command += ["--models", str(arguments.models), "--model", arguments.model, "--count", str(arguments.count)]
    path = f"{ROOT}:{ROOT / 'clients' / 'python' / 'src'}"
    before_s = family_cpu_s(address.pid)
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=LIMIT_S,
    )
    sent = arguments.count + arguments.count // 10  # with those that warm it up
    return json.loads(done.stdout) | {"server_cpu_us": (family_cpu_s(address.pid) - before_s) / sent * 1e6}
