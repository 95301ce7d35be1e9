"""`python -m benchmarks stops`: SIGTERM under full load, again and again; no accepted request may be lost."""

import argparse
import asyncio
import os
import signal
from typing import Any

from benchmarks.grpc_load import grpc_closed_loop
from benchmarks.http_load import GONE, closed_loop
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish, questions, run
from benchmarks.server_process import Address, serve

FULL_LOAD_S = 2.0
ENDLESS_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--stops", type=int, default=20, help="how often (default: 20)")


def run_command(arguments: argparse.Namespace) -> int:
    """Starts, loads and stops a server so often; see the module."""
    verdict, rounds = Verdict(), []
    for number in range(arguments.stops):
        with serve(arguments.models, arguments.server_args.split()) as address:
            found: dict[str, Any] = {}
            run(_stop_under_load(address, arguments, found))
        print(f"stop {number + 1:2}: {found}")
        rounds.append(found)
    verdict.figures["rounds"] = rounds
    for protocol in ("http", "grpc"):
        verdict.require(f"{protocol} requests lost", sum(found[protocol]["lost"] for found in rounds), 0)
        answered = min(found[protocol]["answered"] for found in rounds)
        verdict.require(f"{protocol} requests answered, least of a round", answered, 1, at_least=True)
    return finish(arguments, verdict)


async def _stop_under_load(address: Address, arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    asked = await questions(address, arguments.models, arguments.model)
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    http = asyncio.create_task(closed_loop(address.http, asked, connections=32, seconds=ENDLESS_S))
    grpc = asyncio.create_task(grpc_closed_loop(address.grpc, pictures, connections=4, in_flight=8, seconds=ENDLESS_S))
    await asyncio.sleep(FULL_LOAD_S)
    os.kill(address.pid, signal.SIGTERM)
    tally, grpc_tally = await http, await grpc
    odd = {str(status): tally.status.count(status) for status in set(tally.status) - {200, 429, GONE}}
    found["http"] = {"answered": tally.status.count(200), "lost": tally.status.count(GONE), "other": odd}
    found["grpc"] = grpc_tally.summary()
