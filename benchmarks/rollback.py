"""`python -m benchmarks rollback`: promote and roll back under load; how soon does every worker follow?

python -m export promote | rollback ──rename──▶ policy.json ──each worker──▶ the last answer by the version left
                                         └───────────────── this long ─────────────────┘
"""

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.http_load import Connection, open_loop
from benchmarks.pictures import newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, copied, finish, peak_per_s, questions, run
from benchmarks.server_process import Address, serve
from benchmarks.version_watch import open_watchers, settled_after_s, watch_change

WITHIN_S: Final = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5, help="promotions, each rolled back again (default: 5)")
    parser.add_argument("--workers", type=int, default=2, help="serving processes (default: 2)")


def run_command(arguments: argparse.Namespace) -> int:
    """Promotes and rolls back under a quarter of the peak load; see the module."""
    verdict = Verdict()
    flags = ["--workers", str(arguments.workers), *arguments.server_args.split()]
    with copied(arguments.models, arguments.model) as (models, add):
        add(2)
        with serve(models, flags) as address:
            run(_measure(address, models, arguments.rounds, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, models: Path, rounds: int, verdict: Verdict) -> None:
    name = newest_bundle(models).parent.name
    await _export(models, "promote", name, "1")
    asked = await questions(address, models, name)
    peak = await peak_per_s(address, asked, seconds=5)
    watchers = await open_watchers(address)
    tallies: list[dict[str, Any]] = []
    took_s: dict[str, list[float]] = {"promote": [], "rollback": []}
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            tally = await open_loop(
                address.http, asked, rate_per_s=peak / 4, seconds=5, seed=len(tallies), connections=256
            )
            tallies.append(tally.summary())

    loading = asyncio.create_task(load())
    try:
        for _ in range(rounds):
            took_s["promote"].append(await _change(watchers, models, name, 2, "promote", name, "2"))
            took_s["rollback"].append(await _change(watchers, models, name, 1, "rollback", name))
    finally:
        done.set()
        await loading
    verdict.figures |= {"peak_per_s": peak, "load": tallies, "took_s": took_s}
    verdict.require("requests under way meanwhile", sum(one["requests"] for one in tallies), 1000, at_least=True)
    verdict.require("failed requests", sum(_failed(one["by_status"]) for one in tallies), 0)
    verdict.require("wrong answers", sum(one["wrong"] for one in tallies), 0)
    for action, seconds in took_s.items():
        verdict.require(f"slowest {action} to reach every worker, s", round(max(seconds), 3), WITHIN_S)


async def _change(watchers: list[Connection], models: Path, name: str, wanted: int, *command: str) -> float:
    """Runs an export command; returns how long after the policy's rename the last answer by another version came."""
    seen = await watch_change(watchers, name, wanted, _export(models, *command))
    return settled_after_s(seen, wanted, (models / name / "policy.json").stat().st_mtime)


async def _export(models: Path, *command: str) -> None:
    arguments = [sys.executable, "-m", "export", *command, "--models", str(models)]
    await asyncio.to_thread(subprocess.run, arguments, check=True, stdout=subprocess.DEVNULL)


def _failed(by_status: dict[str, int]) -> int:
    return sum(count for status, count in by_status.items() if status != "200")
