"""`python -m benchmarks gate`: is a request dearer than it was? By CPU time, as a multiple of the bare engine's.

    bare engine, one core ─┐
    each payload           ─┴─ by turns ─▶ CPU time of an image ÷ the engine's ─▶ beside benchmarks/results/gate.json

The engine's own time is the unit, so that a result holds on a faster or a busier machine, as far as the two slow down
alike. Exit code 1 with a table where something is more than 10 % dearer; `--accept` writes what was measured instead.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.closed import prepare, take
from benchmarks.machine import describe_machine, spell_command
from benchmarks.payloads import Target
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.resilience import run
from benchmarks.server_process import Address, serve

ACCEPTED: Final = Path("benchmarks/results/gate.json")
TOLERANCE: Final = 0.10
COLUMNS: Final = "jpeg,png,json,binary,grpc"
UNDER_WAY: Final = 32
EXAMPLES: Final = """\
examples:
  python -m benchmarks gate                         against the last accepted result, about 3 minutes
  python -m benchmarks gate --columns binary --rounds 3 --seconds 1
  python -m benchmarks gate --accept                measures, and makes that the result to compare with
"""

Ratios = dict[str, list[float]]  # CPU time of a request as a multiple of the bare engine's, round by round


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles (default: models)")
    parser.add_argument("--model", default="", help="which model; default: the first by name")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="what to compare with (default: %(default)s)")
    parser.add_argument("--accept", action="store_true", help="write what is measured there, instead of comparing")
    parser.add_argument("--columns", default=COLUMNS, help="what is asked, by commas (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="how much dearer may be (default: 0.1)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, by turns (default: 5)")
    parser.add_argument("--server-args", default="", help="further flags for the server, in one string")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures, and compares or accepts; see the module.

    Raises:
        FileNotFoundError: There is nothing to compare with.
        ValueError: What there is, is another model's.
    """
    bundle = newest_bundle(arguments.models, arguments.model)
    accepted = None if arguments.accept else read_accepted(arguments.accepted, bundle.parent.name)
    measured: Ratios = {column: [] for column in arguments.columns.split(",")}
    with serve(arguments.models, ["--variant", "int8", *arguments.server_args.split()]) as address:
        run(_measure(address, bundle, arguments, measured))
    if accepted is None:
        write(arguments.accepted, bundle.parent.name, measured)
        return 0
    return compare(accepted, measured, arguments.tolerance)


def read_accepted(path: Path, model: str) -> dict[str, Any]:
    """The result to compare with, before minutes are spent on measuring what cannot be compared.

    Args:
        path: Its file.
        model: What is going to be measured.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is another model's.
    """
    if not path.exists():
        raise FileNotFoundError(f"expected an accepted result in {path}: make one with --accept")
    accepted: dict[str, Any] = json.loads(path.read_text())
    if accepted["model"] != model:
        raise ValueError(
            f"expected a result for {model} in {path}, received one for {accepted['model']}: name its bundle with"
            " --models and --model, or make one for this model with --accept and --accepted FILE"
        )
    return accepted


def write(path: Path, model: str, measured: Ratios) -> None:
    """Makes a measurement the one to compare with."""
    result = {
        "machine": describe_machine(),
        "command": spell_command(),
        "model": model,
        "columns": {
            column: {"engines": round(statistics.median(ratios), 3), "rounds": [round(one, 3) for one in ratios]}
            for column, ratios in measured.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"accepted: {path}")


def compare(accepted: dict[str, Any], measured: Ratios, tolerance: float) -> int:
    """Prints a table; 1 where something is dearer than the tolerance allows."""
    table = Table("request", "accepted", "measured", "spread", "change", "")
    dearer = False
    for column, ratios in measured.items():
        before = accepted["columns"].get(column)
        now = statistics.median(ratios)
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
        if before is None:
            table.add_row(column, "-", f"{now:.2f}", spread, "-", "new")
            continue
        change = now / before["engines"] - 1
        dearer |= change > tolerance
        word = "DEARER" if change > tolerance else "cheaper: accept it?" if change < -tolerance else "ok"
        table.add_row(column, f"{before['engines']:.2f}", f"{now:.2f}", spread, f"{change:+.0%}", word)
    Console().print("CPU time of a request, as a multiple of the bare engine's", table)
    return int(dearer)


async def _measure(address: Address, bundle: Path, arguments: argparse.Namespace, measured: Ratios) -> None:
    pictures = golden_pictures(bundle)
    target = Target(address.http, address.grpc, address.pid, "shoal", pictures.model)
    asked = {column: await prepare(target, pictures, column) for column in measured}
    for number in range(arguments.rounds + 1):
        engine_us = await _engine_us(bundle / "model.int8.onnx", arguments.seconds)
        for column, ratios in measured.items():
            sample = await take(target, asked[column], UNDER_WAY, arguments.seconds)
            if number:  # the first round warms up
                ratios.append(sample.cpu_us / engine_us)


async def _engine_us(graph: Path, seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.bare_engine", str(graph), "--seconds", str(min(seconds, 2))]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    return float(json.loads((await process.communicate())[0])["cpu_us"])
