"""`python -m benchmarks photos`: photographs of 500 × 375 pixels to MobileNetV2 at 224 × 224, where decoding counts.

    decode + resize + infer in a loop, a process for each core (the limit) ─┐
    the server, JPEG files uploaded ────────────────────────────────────────┼─ by turns ─▶ photographs per second
    mosec with Pillow, and with the server's own decoder ───────────────────┘

The model comes from Shoal's own pipeline, `training train --model transfer` and `export create`, with random weights:
they cost what trained ones cost. It is made once, into `--work`. Both servers have their
settings of `make bench-peers`, or both have `--batch-rows`; the result says what each had.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.closed import Taken, prepare, take
from benchmarks.payloads import Target
from benchmarks.peer_servers import Peer, read_peers, serve_peer
from benchmarks.pictures import Pictures
from benchmarks.resilience import Verdict, finish, run
from benchmarks.server_process import serve

NAME: Final = "photos"
SIZE_PX: Final = 224
LIMITS: Final = {"limit, batches of 1": 1, "limit, batches of 8": 8}
OURS: Final = "Shoal"
EXAMPLES: Final = """\
examples:
  python -m benchmarks photos --photos data/photos --out photos.json       about 6 minutes; the first time 5 more
  python -m benchmarks photos --photos data/photos --rounds 2 --seconds 2 --no-mosec
  python -m benchmarks photos --photos data/photos --batch-rows 4          smaller batches, here and at mosec
"""
# No gate but that it converts: random weights make no accuracy that could be lost.
UNTRAINED: Final = [
    *("--min-agreement", "0", "--max-accuracy-drop", "1", "--max-class-drop", "1", "--max-difference", "1"),
    *("--max-calibration-drift", "100", "--golden-tolerance", "1"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--work", type=Path, default=Path("build/photos"), help="where the model is made")
    parser.add_argument("--connections", type=int, default=32, help="how many (default: 32)")
    parser.add_argument("--seconds", type=float, default=5, help="length of each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, by turns (default: 5)")
    parser.add_argument("--mosec", action=argparse.BooleanOptionalAction, default=True, help="measure mosec beside it")
    parser.add_argument(
        "--batch-rows", type=int, help="in a batch at most, of ours and of mosec (default: 32, mosec 8)"
    )
    parser.add_argument("--server-args", default="", help="further flags for the server, in one string")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures the limit, the server and mosec by turns; see the module."""
    files = tuple(path.read_bytes() for path in sorted(arguments.photos.glob("*.jpg")))
    if not files:
        raise FileNotFoundError(f"expected JPEG files (*.jpg) in --photos {arguments.photos}, found none")
    models = make_model(arguments.photos, arguments.work)
    graph = models / NAME / "1" / "model.int8.onnx"
    pictures = Pictures(NAME, files, (0,) * len(files), (SIZE_PX, SIZE_PX, 3))
    verdict = Verdict()
    flags = server_flags(arguments.server_args, arguments.batch_rows)
    mosecs = _mosecs(arguments.batch_rows) if arguments.mosec else []
    verdict.figures["settings"] = {OURS: shlex.join(flags)} | {
        name: shlex.join(f"{key}={value}" for key, value in {**peer.variables, **variables}.items())
        for name, peer, variables in mosecs
    }
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve(models, flags))
        targets = {OURS: Target(address.http, address.grpc, address.pid, "shoal", NAME)}
        for name, peer, variables in mosecs:
            targets[name] = stack.enter_context(serve_peer(peer, graph, "jpeg", variables))
        run(_measure(targets, graph, pictures, arguments, verdict))
    return finish(arguments, verdict)


def server_flags(further: str, batch_rows: int | None) -> list[str]:
    """What ours is started with.

    Args:
        further: Flags of the command line.
        batch_rows: Rows in a batch at most; None for the default.

    Raises:
        ValueError: Batches would be tuned for ours alone.
    """
    if "--max-batch-rows" in further:
        raise ValueError(
            "--server-args: expected no --max-batch-rows; received one: say --batch-rows, which mosec gets too"
        )
    rows = ["--max-batch-rows", str(batch_rows)] if batch_rows else []
    return ["--variant", "int8", "--latency-budget-ms", "5000", *rows, *further.split()]


def make_model(photos: Path, work: Path) -> Path:
    """The folder of bundles with the untrained MobileNetV2 in it, which is made where it is not there.

    Args:
        photos: Pictures for it to be calibrated with; the labels are made up.
        work: Where everything goes.
    """
    models = work / "models"
    if (models / NAME / "1" / "manifest.json").exists():
        return models
    data = work / "data"
    for number, path in enumerate(sorted(photos.glob("*.jpg"))):
        folder = data / ("test" if number % 4 == 0 else "train") / f"class{number // 4 % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (folder / path.name).symlink_to(path.resolve())
    runs = ["--name", NAME, "--runs", str(work / "runs")]
    _shoal("training", "train", "--data", str(data), "--model", "transfer", "--set", "weights=none",
           "--image-size", str(SIZE_PX), "--epochs", "1", "--fresh", *runs)  # fmt: skip
    _shoal("export", "create", "--models", str(models), *UNTRAINED, *runs)
    return models


def _shoal(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True)


def _mosecs(batch_rows: int | None) -> list[tuple[str, Peer, dict[str, str]]]:
    (peer,) = (peer for peer in read_peers("mosec") if peer.name.startswith("mosec, 8"))
    rows = {"PEER_BATCH": str(batch_rows)} if batch_rows else {}
    return [
        ("mosec, Pillow", peer, {"PEER_DECODE": "pillow", **rows}),
        ("mosec, Shoal's decoder", peer, {"PEER_DECODE": "shoal", **rows}),
    ]


async def _measure(
    targets: dict[str, Target], graph: Path, pictures: Pictures, arguments: argparse.Namespace, verdict: Verdict
) -> None:
    ways: dict[str, Callable[[], Awaitable[Taken]]] = {
        name: functools.partial(_limit, graph, rows, arguments) for name, rows in LIMITS.items()
    }
    for name, target in targets.items():
        ways[name] = await _way(target, pictures, arguments)
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        for name, way in ways.items():
            sample = await way()
            if number:  # the first round warms up
                taken[name].append(sample)
    for name, samples in taken.items():
        _tell(verdict, name, samples, taken)
    share = min(statistics.median(verdict.figures["photos"][name]["ours_faster"]) for name in LIMITS)
    verdict.require("share of the better limit", round(share, 3), 0.97, at_least=True)
    for name in (name for name in targets if name != OURS):
        faster = statistics.median(verdict.figures["photos"][name]["ours_faster"])
        verdict.require(f"times {name}", round(faster, 3), 1.1, at_least=True)


async def _way(target: Target, pictures: Pictures, arguments: argparse.Namespace) -> Callable[[], Awaitable[Taken]]:
    asked = await prepare(replace(target), pictures, "jpeg")
    return lambda: take(target, asked, arguments.connections, arguments.seconds)


def _tell(verdict: Verdict, name: str, samples: list[Taken], taken: dict[str, list[Taken]]) -> None:
    faster = [ours.per_s / theirs.per_s for ours, theirs in zip(taken[OURS], samples, strict=True)]
    row = {
        "per_s": statistics.median(sample.per_s for sample in samples),
        "cpu_us": statistics.median(sample.cpu_us for sample in samples),
        "ours_faster": faster,
    }
    verdict.figures.setdefault("photos", {})[name] = row
    spread = f"{statistics.median(faster):.2f} x ({min(faster):.2f}..{max(faster):.2f})"
    print(f"{name:<24} {row['per_s']:>7,.0f} per s {row['cpu_us']:>7,.0f} µs   ours: {spread}")


async def _limit(graph: Path, rows: int, arguments: argparse.Namespace) -> Taken:
    command = [sys.executable, "-m", "benchmarks.photo_limit", str(graph), str(arguments.photos)]
    command += ["--seconds", str(arguments.seconds), "--rows", str(rows)]
    running = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    told = [json.loads(out) for out, _ in await asyncio.gather(*(process.communicate() for process in running))]
    return Taken(sum(one["per_s"] for one in told), statistics.mean(one["cpu_us"] for one in told))
