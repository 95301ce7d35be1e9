"""`python -m benchmarks balance`: gRPC and HTTP connections on two workers; both cores busy, neither worker idle."""

import argparse
import asyncio
import os
import signal

from benchmarks.grpc_load import grpc_closed_loop
from benchmarks.http_load import closed_loop
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.processes import machine_busy_s, worker_pids
from benchmarks.resilience import Verdict, add_common_arguments, finish, questions, run
from benchmarks.scrape import sample, scrape
from benchmarks.server_process import Address, serve

WORKERS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--seconds", type=float, default=10, help="length of each of the two loads (default: 10)")


def run_command(arguments: argparse.Namespace) -> int:
    """Loads, kills a worker, loads again; see the module."""
    verdict = Verdict()
    with serve(arguments.models, ["--workers", str(WORKERS), *arguments.server_args.split()]) as address:
        run(_measure(address, arguments, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    await _load(address, arguments, 2)
    await _round("from the start", address, arguments, verdict)
    os.kill(worker_pids(address.pid)[0], signal.SIGKILL)
    await asyncio.sleep(0.5)
    while sample(await asyncio.to_thread(scrape, address), "shoal_workers") < WORKERS:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await _round("new connections after a worker's restart", address, arguments, verdict)


async def _round(name: str, address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    served, busy = await _served(address), machine_busy_s()
    result = await _load(address, arguments, arguments.seconds)
    gained = [after - before for before, after in zip(served, await _served(address), strict=True)]
    busy_s, idle_s = (after - before for before, after in zip(busy, machine_busy_s(), strict=True))
    verdict.figures[name] = {"by_worker": gained, **result}
    verdict.require(f"{name}: cores busy", round(busy_s / (busy_s + idle_s), 3), 0.9, at_least=True)
    share = min(gained) / sum(gained)
    verdict.require(f"{name}: least share of a worker", round(share, 3), 0.35, at_least=True)


async def _load(address: Address, arguments: argparse.Namespace, seconds: float) -> dict[str, object]:
    asked = await questions(address, arguments.models, arguments.model)
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    http, grpc = await asyncio.gather(
        closed_loop(address.http, asked, connections=32, seconds=seconds),
        grpc_closed_loop(address.grpc, pictures, connections=8, in_flight=4, seconds=seconds),
    )
    return {"http": http.summary(), "grpc": grpc.summary()}


async def _served(address: Address) -> list[float]:
    text = await asyncio.to_thread(scrape, address)
    return [sample(text, "shoal_worker_requests_total", slot=str(slot)) for slot in range(WORKERS)]
