"""`python -m benchmarks crashes`: `kill -9` of one worker of two under load; what it held fails, and nothing else."""

import argparse
import asyncio
import os
import signal
import time

from benchmarks.http_load import GONE, Tally, closed_loop
from benchmarks.processes import worker_pids
from benchmarks.resilience import Verdict, add_common_arguments, finish, questions, run
from benchmarks.scrape import sample, scrape
from benchmarks.server_process import Address, serve

CONNECTIONS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--kills", type=int, default=5, help="how often (default: 5)")


def run_command(arguments: argparse.Namespace) -> int:
    """Kills workers, one after the other; see the module."""
    verdict = Verdict()
    with serve(arguments.models, ["--workers", "2", *arguments.server_args.split()]) as address:
        run(_measure(address, arguments, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    asked = await questions(address, arguments.models, arguments.model)
    rounds = []
    for number in range(arguments.kills):
        tally = Tally()
        load = asyncio.create_task(closed_loop(address.http, asked, connections=CONNECTIONS, seconds=6, tally=tally))
        await asyncio.sleep(2)
        victim = worker_pids(address.pid)[number % 2]
        held = await asyncio.to_thread(_held, address)
        os.kill(victim, signal.SIGKILL)
        killed_s = time.monotonic()
        back_s = await _wait_back(address, victim) - killed_s
        await load
        found = {"lost": tally.status.count(GONE), "held": held, "back_s": round(back_s, 2)}
        found["other"] = sum(status not in {200, GONE} for status in tally.status)
        found["answered"] = tally.status.count(200)
        print(f"kill {number + 1}: {found}")
        rounds.append(found)
    verdict.figures["rounds"] = rounds
    verdict.require("requests lost beyond those the worker held", max(f["lost"] - f["held"] for f in rounds), 1)
    verdict.require("failed otherwise", sum(f["other"] for f in rounds), 0)
    verdict.require("slowest return of a worker, s", max(f["back_s"] for f in rounds), 2)


def _held(address: Address) -> int:
    """The most connections that one worker has."""
    text = scrape(address)
    return int(max(sample(text, "shoal_connections", slot=slot) for slot in ("0", "1")))


async def _wait_back(address: Address, victim: int) -> float:
    """Waits until two workers take connections again, none of them the victim."""
    while True:
        present = worker_pids(address.pid)
        if victim not in present and len(present) == 2:  # noqa: PLR2004
            text = await asyncio.to_thread(scrape, address)
            if sample(text, "shoal_workers") == 2:  # noqa: PLR2004
                return time.monotonic()
        await asyncio.sleep(0.05)
