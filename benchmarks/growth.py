"""`python -m benchmarks growth`: does a request cost the same with many connections, many models, and after millions?

1, 8, 64, 512 connections ─┐
1, 10, 50 loaded models   ─┼─▶ CPU time of a request, dearest ÷ cheapest
the first and the last of --requests ─┘   and memory
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.closed import Asked, Taken, prepare, take
from benchmarks.payloads import Target
from benchmarks.pictures import Pictures, golden_pictures, newest_bundle
from benchmarks.processes import family_pss_bytes
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.server_process import Address, serve

FLAT: Final = 1.1 / 0.9  # within 10 % of the middle, dearest by cheapest
MB: Final = 1e6
EXAMPLES: Final = """\
examples:
  python -m benchmarks growth --models models --out growth.json           about 4 minutes, with 200,000 requests
  python -m benchmarks growth --parts requests --requests 10000000        the long run: 20 minutes at 8,000 per second
  python -m benchmarks growth --parts connections --rounds 1 --seconds 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--parts", default="connections,models,requests", help="by commas (default: %(default)s)")
    parser.add_argument("--column", default="binary", help="png, jpeg, json or binary (default: binary)")
    parser.add_argument("--connections", default="1,8,64,512", help="by commas (default: 1,8,64,512)")
    parser.add_argument("--loaded", default="1,10,50", help="models that are loaded, by commas (default: 1,10,50)")
    parser.add_argument("--requests", type=int, default=200_000, help="of the long run (default: 200000)")
    parser.add_argument("--slice-s", type=float, default=5, help="length of a slice of the long run (default: 5)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, by turns (default: 5)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures the parts that are asked for; see the module."""
    parts = arguments.parts.split(",")
    known = {"connections": _connections, "models": _models, "requests": _requests}
    if not set(parts) <= set(known):
        raise ValueError(f"--parts: expected some of {', '.join(known)}; received {arguments.parts}")
    verdict = Verdict()
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    for part in parts:
        known[part](pictures, arguments, verdict)
    return finish(arguments, verdict)


def _flags(arguments: argparse.Namespace) -> list[str]:
    # What is asked here is what an answer costs: with hundreds of connections on busy cores some would be refused.
    return ["--variant", "int8", "--latency-budget-ms", "5000", *arguments.server_args.split()]


def _target(address: Address, pictures: Pictures) -> Target:
    return Target(address.http, address.grpc, address.pid, "shoal", pictures.model)


def _connections(pictures: Pictures, arguments: argparse.Namespace, verdict: Verdict) -> None:
    numbers = [int(number) for number in arguments.connections.split(",")]
    with serve(arguments.models, _flags(arguments)) as address:
        target = _target(address, pictures)

        async def measure() -> None:
            asked = await prepare(target, pictures, arguments.column)
            taken = await _by_turns([(str(n), target, asked, n) for n in numbers], arguments)
            _judge(verdict, "connections", taken)

        run(measure())


def _models(pictures: Pictures, arguments: argparse.Namespace, verdict: Verdict) -> None:
    """A server for each number of models, one after the other in a round: fifty models are 50 times the memory."""
    taken: dict[str, list[Taken]] = {number: [] for number in arguments.loaded.split(",")}
    for _ in range(arguments.rounds):
        for number, samples in taken.items():
            with tempfile.TemporaryDirectory() as folder:
                _copy(newest_bundle(arguments.models, arguments.model), Path(folder), int(number))
                flags = [*_flags(arguments), "--default-model", pictures.model, "--workers", "1"]
                with serve(Path(folder), flags) as address:
                    run(_one(_target(address, pictures), pictures, arguments, samples))
                    memory = verdict.figures.setdefault("pss_mb", {})
                    memory[number] = round(family_pss_bytes(address.pid) / MB, 1)
    _judge(verdict, "models", taken)


async def _one(target: Target, pictures: Pictures, arguments: argparse.Namespace, samples: list[Taken]) -> None:
    asked = await prepare(target, pictures, arguments.column)
    await take(target, asked, 32, min(1.0, arguments.seconds))
    samples.append(await take(target, asked, 32, arguments.seconds))


def _copy(bundle: Path, folder: Path, count: int) -> None:
    """The bundle itself, and copies of it under other names."""
    shutil.copytree(bundle.parent, folder / bundle.parent.name)
    manifest = (bundle / "manifest.json").read_text()
    name = f'"{bundle.parent.name}"'
    for number in range(1, count):
        other = f"{bundle.parent.name}-{number}"
        shutil.copytree(bundle, folder / other / bundle.name)
        (folder / other / bundle.name / "manifest.json").write_text(manifest.replace(name, f'"{other}"'))


def _requests(pictures: Pictures, arguments: argparse.Namespace, verdict: Verdict) -> None:
    with serve(arguments.models, _flags(arguments)) as address:
        target = _target(address, pictures)

        async def measure() -> None:
            asked = await prepare(target, pictures, arguments.column)
            await take(target, asked, 32, min(2.0, arguments.seconds))
            verdict.figures["requests"] = slices = await _slices(target, asked, arguments)
            fifth = max(1, len(slices) // 5)
            early, late = (
                [statistics.median(one[key] for one in part) for key in ("cpu_us", "pss_mb")]
                for part in (slices[:fifth], slices[-fifth:])
            )
            verdict.require("requests: CPU time of the last, times the first", round(late[0] / early[0], 3), 1.1)
            verdict.require("requests: memory after the last, times the first", round(late[1] / early[1], 3), 1.1)

        run(measure())


async def _slices(target: Target, asked: Asked, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    slices: list[dict[str, Any]] = []
    done = 0
    while done < arguments.requests:
        sample = await take(target, asked, 32, arguments.slice_s)
        done += int(sample.per_s * arguments.slice_s)
        slices.append({"requests": done, "cpu_us": sample.cpu_us, "pss_mb": family_pss_bytes(target.pid) / MB})
        print(f"  {done:>12,} requests: {sample.cpu_us:.0f} µs, {slices[-1]['pss_mb']:.0f} MB", flush=True)
    return slices


async def _by_turns(
    ways: Sequence[tuple[str, Target, Asked, int]], arguments: argparse.Namespace
) -> dict[str, list[Taken]]:
    taken: dict[str, list[Taken]] = {name: [] for name, *_ in ways}
    for number in range(arguments.rounds + 1):
        for name, target, asked, connections in ways:
            sample = await take(target, asked, connections, arguments.seconds)
            if number:  # the first round warms up
                taken[name].append(sample)
    return taken


def _judge(verdict: Verdict, what: str, taken: dict[str, list[Taken]]) -> None:
    costs = {name: statistics.median(sample.cpu_us for sample in samples) for name, samples in taken.items()}
    verdict.figures[what] = {
        name: {"cpu_us": costs[name], "samples_us": [sample.cpu_us for sample in samples]}
        for name, samples in taken.items()
    }
    print(f"{what}: " + ", ".join(f"{name}: {cost:.0f} µs" for name, cost in costs.items()))
    ratio = round(max(costs.values()) / min(costs.values()), 3)
    verdict.require(f"{what}: CPU time of a request, dearest by cheapest", ratio, round(FLAT, 3))
