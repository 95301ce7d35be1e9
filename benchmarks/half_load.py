"""`python -m benchmarks half-load`: what a client waits for while the server has half of its peak to do.

    closed loop, 32 connections ──▶ peak ──÷ 2──▶ Poisson arrivals, uploaded PNG files ──▶ median, p99
    closed loop, 1 connection ──▶ median

Generator and server share the cores, as a client on the same machine would; rounds take turns with the peak, which
drifts with the host.
"""

import argparse
import statistics
from typing import Any, Final

from benchmarks.arrivals import ask_at_random
from benchmarks.http_load import Question, closed_loop
from benchmarks.payloads import Target, questions
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish, peak_per_s, run
from benchmarks.server_process import Address, serve

TICK_S: Final = 1e-4  # 2e-4 was 0.6 ms late at p99, and takes 50 instead of 75 µs of CPU for a request
LATE_MS: Final = 0.5  # the generator's own p99, a third of the median's bound
EXAMPLES: Final = """\
examples:
  python -m benchmarks half-load --models models --out half-load.json      about 2 minutes
  python -m benchmarks half-load --column jpeg --share 0.3 --rounds 2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--column", default="png", help="png, jpeg, json or binary (default: png)")
    parser.add_argument("--share", type=float, default=0.5, help="of the peak (default: 0.5)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="how often it is repeated (default: 5)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures the peak and half of it by turns; see the module."""
    verdict = Verdict()
    flags = ["--variant", "int8", *arguments.server_args.split()]
    with serve(arguments.models, flags) as address:
        run(_measure(address, arguments, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    target = Target(address.http, address.grpc, address.pid, "shoal", pictures.model)
    asked = await questions(target, pictures, arguments.column)
    await peak_per_s(address, asked, seconds=min(2.0, arguments.seconds))
    rounds = [await one_round(address, asked, arguments, seed) for seed in range(arguments.rounds)]
    verdict.figures["rounds"] = rounds
    half: list[dict[str, Any]] = [one["half"] for one in rounds]
    middle = {
        key: statistics.median(one["answered_ms"].get(key, float("inf")) for one in half) for key in ("p50", "p99")
    }
    late_ms = statistics.median(one["late_ms"]["p99"] for one in half)
    verdict.require("half load: median, ms", round(middle["p50"], 3), 1.5)
    verdict.require("half load: p99, ms", round(middle["p99"], 3), 6)
    verdict.require("half load: the generator's own lateness, p99, ms", round(late_ms, 3), LATE_MS)
    verdict.require("half load: not answered rightly", sum(_odd(one) for one in half), 0)
    alone = statistics.median(one["alone"]["answered_ms"]["p50"] for one in rounds)
    verdict.require("one connection: median, ms", round(alone, 3), 0.9)


async def one_round(
    address: Address, asked: list[Question], arguments: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """The peak, half of it, and a connection alone.

    Args:
        address: The server.
        asked: In turn.
        arguments: As declared by `add_arguments`.
        seed: Of the arrivals: rounds that repeat one pattern are no rounds.
    """
    url = address.http
    peak = await peak_per_s(address, asked, seconds=min(3.0, arguments.seconds), connections=32)
    half = ask_at_random(
        url,
        asked,
        rate_per_s=peak * arguments.share,
        seconds=arguments.seconds,
        connections=256,
        tick_s=TICK_S,
        seed=seed,
    )
    alone = await closed_loop(url, asked, connections=1, seconds=min(3.0, arguments.seconds))
    found: dict[str, Any] = {"peak_per_s": peak, "half": half.summary(), "alone": alone.summary()}
    print(f"peak {peak:,.0f} per s; at {arguments.share:g} of it {found['half']['answered_ms']}", flush=True)
    return found


def _odd(summary: dict[str, Any]) -> int:
    return int(sum(count for status, count in summary["by_status"].items() if status != "200") + summary["wrong"])
