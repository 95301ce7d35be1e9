"""`python -m benchmarks peers`: one picture a request, by other servers and by ours, by turns on the same cores."""

import argparse
import contextlib
import statistics
import tempfile
from pathlib import Path

from benchmarks.http_load import Question, closed_loop, connect, post
from benchmarks.peer_servers import PEERS, serve_peer
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.processes import family_cpu_s
from benchmarks.resilience import Verdict, add_common_arguments, finish, questions, run
from benchmarks.server_process import serve

OURS = "Shoal"
OK = 200

Contender = tuple[str, list[Question], int]  # URL, questions, process
Taken = tuple[float, float]  # answers per second, CPU time of the server for each in microseconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, by turns (default: 5)")
    parser.add_argument("--connections", default="32,128", help="how many, joined by commas (default: 32,128)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures every server at every number of connections; see the module."""
    verdict = Verdict()
    bundle = newest_bundle(arguments.models, arguments.model)
    flags = ["--variant", "int8", *arguments.server_args.split()]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(serve(arguments.models, flags))
        peers = {
            peer.name: stack.enter_context(serve_peer(peer, bundle / "model.int8.onnx", folder / f"{number}.log"))
            for number, peer in enumerate(PEERS)
        }

        async def measure() -> None:
            asked = await questions(address, arguments.models, arguments.model)
            contenders: dict[str, Contender] = {OURS: (address.http, asked, address.pid)}
            for name, (url, pid) in peers.items():
                contenders[name] = (url, await _asked(url, bundle), pid)
            for connections in map(int, arguments.connections.split(",")):
                await _compare(verdict, contenders, connections, arguments)

        run(measure())
    return finish(arguments, verdict)


async def _compare(
    verdict: Verdict, contenders: dict[str, Contender], connections: int, arguments: argparse.Namespace
) -> None:
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    for number in range(arguments.rounds + 1):
        for name, contender in contenders.items():
            sample = await _take(contender, connections, arguments.seconds)
            if number:  # the first round warms up
                taken[name].append(sample)
    ours = taken[OURS]
    for name, samples in taken.items():
        per_s, cpu_us = (statistics.median(column) for column in zip(*samples, strict=True))
        faster = [mine[0] / theirs[0] for mine, theirs in zip(ours, samples, strict=True)]
        cheaper = [mine[1] / theirs[1] for mine, theirs in zip(ours, samples, strict=True)]
        verdict.figures.setdefault("peers", []).append(
            {"name": name, "connections": connections, "per_s": per_s, "cpu_us": cpu_us}
            | {"ours_faster": faster, "ours_cpu": cheaper}
        )
        print(
            f"{name:<18} {connections:>4} connections {per_s:>7,.0f} per s {cpu_us:>6.0f} µs   ours: "
            f"{statistics.median(faster):.2f} x ({min(faster):.2f}..{max(faster):.2f}),"
            f" CPU {statistics.median(cheaper):.2f} x"
        )


async def _take(contender: Contender, connections: int, seconds: float) -> Taken:
    url, asked, pid = contender
    before_s = family_cpu_s(pid)
    tally = await closed_loop(url, asked, connections=connections, seconds=seconds)
    spent_s = family_cpu_s(pid) - before_s
    summary = tally.summary()
    if set(summary["by_status"]) != {str(OK)} or summary["wrong"]:
        raise RuntimeError(f"expected right answers only, received {summary['by_status']}, {summary['wrong']} wrong")
    return summary["good_per_s"], spent_s / summary["requests"] * 1e6


async def _asked(url: str, bundle: Path) -> list[Question]:
    """The golden pictures as a peer takes them, with the class that it gives while idle."""
    asked, connection = [], await connect(url)
    for file in golden_pictures(bundle).files:
        question = post(url, file, "application/octet-stream")
        status, body = await connection.ask_nowait(question.request)
        if status != OK:
            raise RuntimeError(f"an idle peer answered {status}: {body.decode()}")
        asked.append(Question(question.request, body[: body.index(b'"probability"')]))
    connection.close()
    return asked
