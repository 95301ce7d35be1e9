"""`python -m benchmarks peers`: one image a request, by other servers and by ours, by turns on the same cores.

    for each peer, in each column it has:   ours ─┐
                                            peer ─┴─ by turns ─▶ per second, CPU time, ours ÷ theirs with its spread

A peer is beside ours alone, so that none pays for another's idling. What cannot be started is told with its reason.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.closed import Asked, Taken, prepare, take
from benchmarks.h2load import NotReadyError
from benchmarks.payloads import Target
from benchmarks.peer_servers import READY_WITHIN_S, Peer, read_peers, serve_peer
from benchmarks.pictures import Pictures, golden_pictures, newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, run, save
from benchmarks.server_process import Address, serve

SAID_CHARACTERS: Final = 400
COLUMNS: Final = ("jpeg", "png", "json", "binary", "grpc", "grpcio", "stream")
# Columns of ours beside a column of theirs: the host that is installed by default, and the stream against their calls.
BESIDE: Final = {"grpcio": "grpc", "stream": "grpc"}
EXAMPLES: Final = """\
examples:
  python -m benchmarks peers --out peers.json                      every peer, every column: about 40 minutes
  python -m benchmarks peers --peers mosec,triton --columns binary
  python -m benchmarks peers --peers triton --columns grpc,grpcio,stream --rounds 3 --seconds 2
  python -m benchmarks peers --out peers.json --resume             goes on where a run was cut off
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--peers", default="", help="beginnings of names in peers/settings.toml, by commas (all)")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="what is asked, by commas (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated, by turns (default: 3)")
    parser.add_argument("--connections", default="32,128", help="requests under way, by commas (default: 32,128)")
    parser.add_argument(
        "--environments", action="store_true", help="print the environments that the peers need, and stop"
    )
    parser.add_argument("--resume", action="store_true", help="keep what --out has already")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures every peer in every column; see the module.

    Returns:
        0 when at least one peer was measured.
    """
    unknown = set(arguments.columns.split(",")) - set(COLUMNS)
    if unknown:
        raise ValueError(f"--columns: expected some of {', '.join(COLUMNS)}; received {', '.join(sorted(unknown))}")
    peers = read_peers(arguments.peers)
    if arguments.environments:
        print(*dict.fromkeys(peer.environment for peer in peers))
        return 0
    bundle = newest_bundle(arguments.models, arguments.model)
    verdict = Verdict(_before(arguments))
    # What is asked here is what an answer costs: on busy cores ours would refuse some, and peers have no such budget.
    flags = ["--variant", "int8", "--latency-budget-ms", "5000", *arguments.server_args.split()]
    with serve(arguments.models, flags) as address:
        for peer in peers:
            for column in _columns(peer, arguments):
                if not _known(verdict, peer, column):
                    with _ours(arguments, flags, column, address) as ours:
                        _measure(peer, column, bundle, ours, arguments, verdict)
                    save(arguments, verdict)
    for name, reason in verdict.figures["left_out"].items():
        print(f"left out: {name}: {reason}")
    return int(not verdict.figures["peers"])


def _columns(peer: Peer, arguments: argparse.Namespace) -> list[str]:
    return [column for column in arguments.columns.split(",") if BESIDE.get(column, column) in peer.columns]


def _before(arguments: argparse.Namespace) -> dict[str, Any]:
    empty: dict[str, Any] = {"peers": [], "left_out": {}}
    if not (arguments.resume and arguments.out and arguments.out.exists()):
        return empty
    before = json.loads(arguments.out.read_text())
    return empty | {"peers": before["peers"]}


def _known(verdict: Verdict, peer: Peer, column: str) -> bool:
    return any((row["name"], row["column"]) == (peer.name, column) for row in verdict.figures["peers"])


@contextlib.contextmanager
def _ours(arguments: argparse.Namespace, flags: list[str], column: str, usual: Address) -> Iterator[Address]:
    if column != "grpcio":
        yield usual
        return
    with serve(arguments.models, [*flags, "--grpc-host", "grpcio"]) as address:
        yield address


def _measure(
    peer: Peer, column: str, bundle: Path, address: Address, arguments: argparse.Namespace, verdict: Verdict
) -> None:
    pictures = golden_pictures(bundle)
    ours = Target(address.http, address.grpc, address.pid, "shoal", pictures.model)
    theirs_in = BESIDE.get(column, column)
    try:
        with serve_peer(peer, bundle / "model.int8.onnx", theirs_in) as theirs:
            run(_compare(peer, column, (ours, theirs), pictures, arguments, verdict))
    except (FileNotFoundError, RuntimeError) as error:
        verdict.figures["left_out"][f"{peer.name}, {column}"] = reason(error)


def reason(error: Exception) -> str:
    """Why a peer was left out: the beginning and the end of what it said, without the folders of this machine."""
    said = " ".join(str(error).split()).replace(f"{Path.cwd()}/", "").replace(str(Path.home()), "~")
    return said if len(said) <= SAID_CHARACTERS else f"{said[:100]} … {said[100 - SAID_CHARACTERS :]}"


async def _compare(
    peer: Peer,
    column: str,
    targets: tuple[Target, Target],
    pictures: Pictures,
    arguments: argparse.Namespace,
    verdict: Verdict,
) -> None:
    ours, theirs = targets
    asked = [
        await prepare(ours, pictures, "stream" if column == "stream" else BESIDE.get(column, column)),
        await _when_ready(theirs, pictures, BESIDE.get(column, column)),
    ]
    for under_way in map(int, arguments.connections.split(",")):
        taken: list[tuple[Taken, Taken]] = []
        for number in range(arguments.rounds + 1):
            pair = [await take(targets[i], asked[i], under_way, arguments.seconds) for i in (0, 1)]
            if number:  # the first round warms up
                taken.append((pair[0], pair[1]))
        row = {"column": column, "name": peer.name, "version": peer.version, "connections": under_way} | summary(taken)
        verdict.figures["peers"].append(row)
        print(tell(row), flush=True)


async def _when_ready(target: Target, pictures: Pictures, column: str) -> Asked:
    """Some peers listen before the model is there."""
    give_up_s = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            return await prepare(target, pictures, column)
        except NotReadyError:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(0.5)


def summary(taken: list[tuple[Taken, Taken]]) -> dict[str, Any]:
    """One row of the table.

    Args:
        taken: Ours and theirs, round by round.
    """
    return {
        "per_s": statistics.median(theirs.per_s for _, theirs in taken),
        "cpu_us": statistics.median(theirs.cpu_us for _, theirs in taken),
        "ours_per_s": statistics.median(ours.per_s for ours, _ in taken),
        "ours_cpu_us": statistics.median(ours.cpu_us for ours, _ in taken),
        "ours_faster": [ours.per_s / theirs.per_s for ours, theirs in taken],
        "ours_cpu": [ours.cpu_us / theirs.cpu_us for ours, theirs in taken],
    }


def tell(row: dict[str, Any]) -> str:
    """A row as a line."""
    faster, cheaper = row["ours_faster"], row["ours_cpu"]
    theirs = f"{row['per_s']:>7,.0f} per s {row['cpu_us']:>6.0f} µs"
    ours = f"{row['ours_per_s']:>7,.0f} per s {row['ours_cpu_us']:>6.0f} µs"
    ratio = f"{statistics.median(faster):.2f} x ({min(faster):.2f}..{max(faster):.2f})"
    name = f"{row['column']:<7} {row['connections']:>4} {row['name']:<20}"
    return f"{name} {theirs}   ours {ours}: {ratio}, CPU {statistics.median(cheaper):.2f} x"
