"""`python -m benchmarks stages`: where each microsecond of a request goes.

    a server as it is            ─┐              ┌▶ CPU time of a request ─┐
    one that samples its stacks  ─┴─ by turns ───┴▶ share of each stage   ─┴▶ µs of each stage, together the CPU time

32 connections ask one image a request, again as soon as they are answered. How samples are taken
is told in `benchmarks/sampler.py`, and which code is which stage in `benchmarks/stage_table.py`.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.closed import Asked, prepare, take
from benchmarks.payloads import GRPC_COLUMNS, HTTP_COLUMNS, Target
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.processes import family_cpu_s, family_native_cpu_s
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.sampler import Samples, install
from benchmarks.server_process import Address, serve
from benchmarks.stage_table import count, split

COLUMNS: Final = "png,binary,grpc"
KNOWN: Final = (*HTTP_COLUMNS, *GRPC_COLUMNS)
UNDER_WAY: Final = 32
WARM_S: Final = 0.5
TRIES: Final = 4
AGAIN_AFTER_S: Final = 3.0  # a worker that ended is back within a second
ENGINE_ROWS: Final = (1, 32)
EXAMPLES: Final = """\
examples:
  python -m benchmarks stages --models models --out stages.json       about a minute
  python -m benchmarks stages --columns png --rounds 5 --seconds 4    one kind of request, less noise
  python -m benchmarks stages --columns json,stream --server-args '--workers 1'
"""

Split = dict[str, list[float]]  # µs of a request by stage, round by round


@dataclass(frozen=True)
class Servers:
    """The same server twice.

    Args:
        plain: As it is.
        sampled: One that samples itself.
        samples: What it has written.
    """

    plain: Address
    sampled: Address
    samples: Samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--variant", default="int8", help="which graph of the bundle (default: int8)")
    parser.add_argument("--columns", default=COLUMNS, help=f"some of {', '.join(KNOWN)} (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="length of each measurement (default: 2)")
    parser.add_argument(
        "--rest-s", type=float, default=0, help="rest before each, where others use the machine (default: 0)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated, by turns (default: 3)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures; see the module.

    Raises:
        ValueError: `--columns` names something else, or the server wrote no samples.
    """
    columns = arguments.columns.split(",")
    if not set(columns) <= set(KNOWN):
        raise ValueError(f"--columns: expected some of {', '.join(KNOWN)}; received {arguments.columns}")
    verdict = Verdict()
    with _servers(arguments) as servers:
        run(_measure(servers, columns, arguments, verdict))
    return finish(arguments, verdict)


@contextmanager
def _servers(arguments: argparse.Namespace) -> Iterator[Servers]:
    # What is asked here is what an answer costs: on busy cores the default budget would have some refused.
    flags = ["--variant", arguments.variant, "--latency-budget-ms", "5000", *arguments.server_args.split()]
    with tempfile.TemporaryDirectory() as folder:
        path = install(Path(folder))
        with (
            serve(arguments.models, flags) as plain,
            serve(arguments.models, flags, {"PYTHONPATH": path}) as sampled,
        ):
            yield Servers(plain, sampled, Samples(Path(folder)))


async def _measure(servers: Servers, columns: list[str], arguments: argparse.Namespace, verdict: Verdict) -> None:
    bundle = newest_bundle(arguments.models, arguments.model)
    graph = bundle / ("model.onnx" if arguments.variant == "float32" else f"model.{arguments.variant}.onnx")
    pictures = golden_pictures(bundle)
    plain, sampled = (
        Target(address.http, address.grpc, address.pid, "shoal", pictures.model)
        for address in (servers.plain, servers.sampled)
    )
    asked = {
        column: (await prepare(plain, pictures, column), await prepare(sampled, pictures, column)) for column in columns
    }
    found: dict[str, Split] = {column: {} for column in columns}
    engine: dict[int, list[float]] = {rows: [] for rows in ENGINE_ROWS}
    for column in columns:
        for target, what in zip((plain, sampled), asked[column], strict=True):
            await take(target, what, UNDER_WAY, WARM_S)
    for _ in range(arguments.rounds):
        for column in columns:
            await asyncio.sleep(arguments.rest_s)
            taken = await take(plain, asked[column][0], UNDER_WAY, arguments.seconds)
            await asyncio.sleep(arguments.rest_s)
            _add(found[column], await _sampled(servers, sampled, asked[column][1], arguments.seconds, taken.cpu_us))
        for rows, each in engine.items():
            each.append(await _engine_us(graph, rows))
    verdict.figures["stages"] = {column: _told(one) for column, one in found.items()}
    verdict.figures["engine"] = {str(rows): _spread(each) for rows, each in engine.items()}
    _print(verdict.figures)


async def _sampled(servers: Servers, target: Target, asked: Asked, seconds: float, cpu_us: float) -> dict[str, float]:
    """One round's split.

    Python takes its frames apart while it is interrupted, so about one sample in ten thousand reads what is no longer
    there and ends its worker. The supervisor brings it back, and the round is made again.
    """
    for _ in range(TRIES):
        try:
            return await _sampled_once(servers, target, asked, seconds, cpu_us)
        except RuntimeError as error:
            print(f"made again, for a worker was lost to a sample: {error}", file=sys.stderr)
            await asyncio.sleep(AGAIN_AFTER_S)
    raise ValueError(
        f"expected a round without a lost worker, received none of {TRIES}: run it again, with fewer --seconds"
    )


async def _sampled_once(
    servers: Servers, target: Target, asked: Asked, seconds: float, cpu_us: float
) -> dict[str, float]:
    servers.samples.new()
    before_s, native_s = family_cpu_s(target.pid), family_native_cpu_s(target.pid)
    await take(target, asked, UNDER_WAY, seconds)
    native_s, spent_s = family_native_cpu_s(target.pid) - native_s, family_cpu_s(target.pid) - before_s
    return split(count(servers.samples.new()), native_s / spent_s, cpu_us)


def _add(column: Split, one: dict[str, float]) -> None:
    for name, us in one.items():
        column.setdefault(name, []).append(us)


def _told(column: Split) -> dict[str, Any]:
    """By stage, and the whole: means, because only these add up."""
    whole = [sum(each) for each in zip(*column.values(), strict=True)]
    return {"cpu_us": _spread(whole), "stages": {name: _spread(each) for name, each in column.items()}}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"us": statistics.mean(values), "rounds": [round(value, 2) for value in values]}


async def _engine_us(graph: Path, rows: int) -> float:
    command = [sys.executable, "-m", "benchmarks.bare_engine", str(graph), "--rows", str(rows), "--seconds", "0.5"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    return float(json.loads((await process.communicate())[0])["cpu_us"])


def _print(figures: dict[str, Any]) -> None:
    for column, one in figures["stages"].items():
        print(f"{column}: {one['cpu_us']['us']:.0f} µs of CPU a request")
        for name, stage in one["stages"].items():
            print(f"  {name:<30} {stage['us']:>6.1f} µs  ({min(stage['rounds']):.1f}–{max(stage['rounds']):.1f})")
    print(", ".join(f"bare engine at {rows}: {one['us']:.0f} µs" for rows, one in figures["engine"].items()))
