"""`python -m benchmarks overload`: twice what the server can do, and what its clients get."""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from benchmarks.http_load import closed_loop, open_loop
from benchmarks.resilience import Verdict, add_common_arguments, finish, peak_per_s, questions, run
from benchmarks.server_process import Address, generator_apart, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--seconds", type=float, default=60, help="length of the overload (default: 60)")
    parser.add_argument(
        "--shared-cores",
        action="store_true",
        help="let the load generator use the server's cores too (default: it has the last core for itself)",
    )
    parser.add_argument("--times", type=float, default=2, help="arrivals as a multiple of the peak (default: 2)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures the peak, then overloads; see the module."""
    verdict = Verdict()
    apart = nullcontext() if arguments.shared_cores else generator_apart()
    with apart as cores, serve(arguments.models, arguments.server_args.split()) as address:
        verdict.figures["server_cores"] = cores or os.cpu_count()
        run(_measure_awake(address, arguments, verdict) if cores else _measure(address, arguments, verdict))
    return finish(arguments, verdict)


async def _measure_awake(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    async with _awake():
        await _measure(address, arguments, verdict)


@asynccontextmanager
async def _awake() -> AsyncIterator[None]:
    """Keeps the generator's core from sleeping, which it has for itself.

    On loopback the server's own system call wakes a client that sleeps: 6 to 7 µs of each answer and each refusal, in a
    virtual machine, that a client on another machine would not cost it.
    """

    async def turn() -> None:
        while True:  # noqa: ASYNC110  there is nothing to wait for
            await asyncio.sleep(0)

    task = asyncio.create_task(turn())
    try:
        yield
    finally:
        task.cancel()


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    asked = await questions(address, arguments.models, arguments.model)
    await peak_per_s(address, asked, seconds=3)
    before = (await closed_loop(address.http, asked, connections=1, seconds=3)).summary()
    peaks = [await peak_per_s(address, asked, seconds=5)]
    rate_per_s = arguments.times * peaks[0]
    print(f"peak {peaks[0]:,.0f} per s; now {rate_per_s:,.0f} per s for {arguments.seconds:.0f} s")
    overload = (await open_loop(address.http, asked, rate_per_s=rate_per_s, seconds=arguments.seconds)).summary()
    await asyncio.sleep(1)
    after = (await closed_loop(address.http, asked, connections=1, seconds=3)).summary()
    peaks.append(await peak_per_s(address, asked, seconds=5))
    verdict.figures |= {"peak_per_s": peaks, "before": before, "overload": overload, "after": after}
    # Host speed drifts during the minute: the peak is taken on both sides of it.
    peak = sum(peaks) / 2
    verdict.require("goodput, share of peak", round(overload["good_per_s"] / peak, 3), 0.9, at_least=True)
    verdict.require("p99 of accepted, ms", overload["answered_ms"]["p99"], 200)
    verdict.require("p99 of refusals, ms", overload["refused_ms"].get("p99", 0), 10)
    verdict.require("wrong answers", overload["wrong"], 0)
    verdict.require("neither answered nor refused", _odd(overload["by_status"]), 0)
    ratio = after["answered_ms"]["p50"] / before["answered_ms"]["p50"]
    verdict.require("median a second later, times the one before", round(ratio, 3), 1.5)


def _odd(by_status: dict[str, int]) -> int:
    return sum(count for status, count in by_status.items() if status not in {"200", "429"})
