"""`python -m benchmarks poisson`: the most arrivals, at random times, that are answered in time.

    bare engine, batches of 32 ──▶ images per second = 1
    Poisson arrivals, one image each, binary ──bisection──▶ the highest rate with a p99 within 15 ms, and within 200 ms

The generator has the last core for itself and the server and the engine the others (`--shared-cores`: all have all).
The time of a request counts from when it was due, and a refused or wrong one is infinitely late: a p99 bears one in a
hundred of them. The server's own budget is above the bounds, so that it is not what is measured. How late the generator
itself came is measured too: where that is a tenth of the bound, the run says nothing of the server and is made again.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.arrivals import ask_at_random
from benchmarks.http_load import Question
from benchmarks.payloads import Target, questions
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.server_process import Address, generator_apart, serve, server_cores

MANY: Final = 32
LATE_SHARE: Final = 0.1  # of the bound
TRIES: Final = 3  # of a rate at which the generator was late
CONNECTIONS: Final = 512
SLOWER: Final = 0.97  # after a round that did not hold: hosts drift
BUDGET_MS: Final = 5000  # of the server: above every bound, as for the peers
PAUSE_S: Final = 0.5  # until the server has answered what a late rate left behind
SHARED_TICK_S: Final = 2e-4  # where spinning would take a core from the server
AIMS: Final = {15.0: 0.70, 200.0: 0.80}  # p99 in milliseconds: share of the engine
EXAMPLES: Final = """\
examples:
  python -m benchmarks poisson --models models --out poisson.json             both bounds, about 8 minutes
  python -m benchmarks poisson --bounds-ms 15 --seconds 4 --steps 5           a quick look
  python -m benchmarks poisson --shared-cores                                 generator and server on the same cores
"""


@dataclass(frozen=True)
class Load:
    """What every rate has in common.

    Args:
        url: The server.
        asked: Sent in turn.
        seconds: Length of each rate.
        tick_s: Of the generator; see `arrivals.ask_at_random`.
        seeds: Of the arrivals, one for each try: rounds that repeat one pattern are no rounds.
    """

    url: str
    asked: Sequence[Question]
    seconds: float
    tick_s: float
    seeds: Iterator[int] = field(default_factory=itertools.count)


@dataclass(frozen=True)
class Probe:
    """One rate.

    Args:
        rate_per_s: Mean arrivals in a second.
        p99_ms: Of all requests, those not answered rightly being infinitely late.
        late_p99_ms: How late the generator came.
        valid: Whether it came in time.
        lost_share: Requests that were refused, missing or wrong, as a share of all.
    """

    rate_per_s: float
    p99_ms: float
    late_p99_ms: float
    valid: bool
    lost_share: float = 0.0

    def holds(self, bound_ms: float) -> bool:
        """Whether the server kept a bound, as far as can be told."""
        return self.valid and self.p99_ms <= bound_ms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--bounds-ms", default="15,200", help="of the p99, by commas (default: 15,200)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each rate (default: 10)")
    parser.add_argument("--steps", type=int, default=7, help="rates tried for each bound (default: 7)")
    parser.add_argument("--rounds", type=int, default=3, help="the rate that was found, again beside the engine (3)")
    parser.add_argument("--shared-cores", action="store_true", help="generator and server share all cores")


def run_command(arguments: argparse.Namespace) -> int:
    """Searches for the highest rate of each bound; see the module."""
    verdict = Verdict()
    flags = server_flags(arguments.server_args)
    apart = nullcontext() if arguments.shared_cores else generator_apart()
    with apart as cores, serve(arguments.models, flags) as address:
        verdict.figures["server_cores"] = cores or len(os.sched_getaffinity(0))
        run(_measure(address, arguments, verdict))
    return finish(arguments, verdict)


def server_flags(further: str) -> list[str]:
    """What the server is started with.

    Args:
        further: Flags of the command line, which have the last word.
    """
    return ["--variant", "int8", "--latency-budget-ms", str(BUDGET_MS), *further.split()]


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    bundle = newest_bundle(arguments.models, arguments.model)
    pictures = golden_pictures(bundle)
    target = Target(address.http, address.grpc, address.pid, "shoal", pictures.model)
    asked = await questions(target, pictures, "binary")
    graph = bundle / "model.int8.onnx"
    load = Load(address.http, asked, arguments.seconds, SHARED_TICK_S if arguments.shared_cores else 0.0)
    limit = await engine_per_s(graph, min(load.seconds, 3))
    print(f"engine alone, batches of {MANY}: {limit:,.0f} images per second")
    for bound_ms in map(float, arguments.bounds_ms.split(",")):
        probes = search(load, bound_ms, limit, arguments.steps)
        best = max((probe.rate_per_s for probe in probes if probe.holds(bound_ms)), default=0.0)
        found: dict[str, Any] = {"probes": [asdict(probe) for probe in probes]}
        engine = partial(engine_per_s, graph, min(load.seconds, 3))
        found |= await again(load, bound_ms, best, engine, arguments.rounds if best else 0)
        found["share"] = round(statistics.median(found["shares"]), 3) if found["shares"] else 0.0
        verdict.figures[f"p99 within {bound_ms:g} ms"] = found
        what = f"p99 within {bound_ms:g} ms: rate, share of the engine at {MANY}"
        late = [probe for probe in probes if not probe.valid and probe.rate_per_s <= limit * AIMS.get(bound_ms, 1.0)]
        verdict.require(f"p99 within {bound_ms:g} ms: rates at which the generator was late", len(late), 0)
        verdict.require(what, found["share"], AIMS.get(bound_ms, 0.0), at_least=True)


def search(load: Load, bound_ms: float, limit_per_s: float, steps: int) -> list[Probe]:
    """Halves the range between a rate that held and one that did not, again and again.

    A rate that did not hold is tried once more, and the better try counts: a host that is away for half a second fails
    any rate, and every one after it would be searched below.

    Args:
        load: What is asked.
        bound_ms: For the p99.
        limit_per_s: No server is faster than this.
        steps: How many rates.
    """
    low, high = 0.0, limit_per_s
    probes = []
    for _ in range(steps):
        rate_per_s = (low + high) / 2
        probe = ask(load, rate_per_s, bound_ms)
        if not probe.holds(bound_ms):
            time.sleep(PAUSE_S)
            probe = min(probe, ask(load, rate_per_s, bound_ms), key=lambda one: (not one.valid, one.p99_ms))
        probes.append(probe)
        note = "" if probe.valid else ", INVALID: the generator was late"
        print(
            f"  {probe.rate_per_s:>7,.0f} per s: p99 {probe.p99_ms:.1f} ms (bound {bound_ms:g}),"
            f" {probe.lost_share:.2%} not answered rightly, generator late by {probe.late_p99_ms:.2f} ms{note}",
            flush=True,
        )
        low, high = (probe.rate_per_s, high) if probe.holds(bound_ms) else (low, probe.rate_per_s)
    return probes


def ask(load: Load, rate_per_s: float, bound_ms: float) -> Probe:
    """Tries one rate, and again where the generator was late: that says nothing of the server."""
    for _ in range(TRIES):
        tally = ask_at_random(
            load.url,
            load.asked,
            rate_per_s=rate_per_s,
            seconds=load.seconds,
            connections=CONNECTIONS,
            tick_s=load.tick_s,
            seed=next(load.seeds),
        )
        summary = tally.summary()
        late_ms = summary["late_ms"]["p99"]
        if late_ms <= LATE_SHARE * bound_ms:
            break
        time.sleep(PAUSE_S)
    lost = summary["requests"] - summary["by_status"].get("200", 0) + summary["wrong"]
    valid = late_ms <= LATE_SHARE * bound_ms
    return Probe(rate_per_s, tally.felt_ms(0.99), late_ms, valid, lost_share=lost / summary["requests"])


async def again(
    load: Load, bound_ms: float, rate_per_s: float, engine: Callable[[], Awaitable[float]], rounds: int
) -> dict[str, Any]:
    """The rate beside the engine by turns, slower by 3 % after each round that does not hold.

    Args:
        load: What is asked.
        bound_ms: For the p99.
        rate_per_s: What the search found.
        engine: Measures the bare engine's images in a second.
        rounds: How many.

    Returns:
        The last rate that held (0 where none did), all that did with their shares of the engine, how many rounds did
        not hold, and every probe.
    """
    probes, rates, shares = [], [], []
    for _ in range(rounds):
        probe = ask(load, rate_per_s, bound_ms)
        probes.append(probe)
        if not probe.holds(bound_ms):
            rate_per_s *= SLOWER
            continue
        rates.append(rate_per_s)
        shares.append(round(rate_per_s / await engine(), 3))
    return {
        "rounds": [asdict(probe) for probe in probes],
        "rate_per_s": rates[-1] if rates else 0.0,
        "rates_per_s": rates,
        "rounds_failed": rounds - len(rates),
        "shares": shares,
    }


async def engine_per_s(graph: Path, seconds: float) -> float:
    """Images per second of the bare engine in batches of 32, a process on each of the server's cores at once.

    Args:
        graph: The ONNX file.
        seconds: How long.
    """
    command = [sys.executable, "-m", "benchmarks.bare_engine", str(graph), "--rows", str(MANY)]
    command += ["--seconds", str(seconds)]
    running = []
    for core in server_cores():
        pinned = ["taskset", "--cpu-list", str(core), *command]
        running.append(await asyncio.create_subprocess_exec(*pinned, stdout=subprocess.PIPE))
    told = await asyncio.gather(*(process.communicate() for process in running))
    return float(sum(json.loads(out)["per_s"] for out, _ in told))
