"""`python -m benchmarks limit`: how much of what the bare engine can do is left with a server around it.

    bare engine, a process for each core ─┐
    server, one image for each request   ─┼─ by turns ─▶ images per second, as a share of the engine at 32
    server, 32 images for each request   ─┘

The load is made on the same cores, so its cost counts as well: it is told beside the server's.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.closed import right_answers
from benchmarks.grpc_raw import raw_closed_loop
from benchmarks.http_load import Question, connect
from benchmarks.peak import v2_question
from benchmarks.pictures import Pictures, golden_pictures, newest_bundle
from benchmarks.processes import family_cpu_s
from benchmarks.resilience import Verdict, add_common_arguments, finish, questions, run
from benchmarks.server_process import Address, serve
from protos import classifier_pb2, inference_pb2

MANY: Final = 32  # images in a request, and in the engine's batch
FEW_CLIENTS: Final = 8  # with as many images each, so that both workers always have a batch waiting
OK: Final = 200

CLASSIFY: Final = "/shoal.v1.Classifier/Classify"
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"

# Images per second, and CPU time for each in microseconds: the server's (or the engine's), and the load generator's.
Taken = tuple[float, float, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--variant", default="int8", help="which graph of the bundle (default: int8)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, by turns (default: 5)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures the engine and the server by turns; see the module."""
    verdict = Verdict()
    flags = ["--variant", arguments.variant, *arguments.server_args.split()]
    with serve(arguments.models, flags) as address:
        run(_measure(address, arguments, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    bundle = newest_bundle(arguments.models, arguments.model)
    seconds = arguments.seconds
    graph = bundle / ("model.onnx" if arguments.variant == "float32" else f"model.{arguments.variant}.onnx")
    pictures = golden_pictures(bundle)
    uploads = await questions(address, arguments.models, arguments.model)
    one, many = [await _binary(address, pictures, rows) for rows in (1, MANY)]
    ways: dict[str, Callable[[], Awaitable[Taken]]] = {
        "engine, batch 1": lambda: _engine(graph, 1, seconds),
        f"engine, batch {MANY}": lambda: _engine(graph, MANY, seconds),
        "upload, 32 connections": lambda: _http(address, uploads, 32, seconds, 1),
        "binary, 32 connections": lambda: _http(address, one, 32, seconds, 1),
        f"binary, {MANY} images": lambda: _http(address, many, FEW_CLIENTS, seconds, MANY),
        f"gRPC, {MANY} images": lambda: _grpc(address, CLASSIFY, _classify_request(pictures), seconds),
        f"gRPC V2, {MANY} images": lambda: _grpc(address, INFER, _infer_request(pictures), seconds),
    }
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, take in ways.items():
            taken[name].append(await take())
    limits = [sample[0] for sample in taken[f"engine, batch {MANY}"]]
    for name, samples in taken.items():
        _tell(verdict, name, samples, limits)
    ratio = verdict.figures["limit"]["binary, 32 connections"]["cpu_us"]
    ratio /= verdict.figures["limit"]["engine, batch 1"]["cpu_us"]
    verdict.require("binary, one image: CPU time as a multiple of the engine's at 1", round(ratio, 2), 1.2)
    for name in (f"binary, {MANY} images", f"gRPC, {MANY} images", f"gRPC V2, {MANY} images"):
        share = statistics.median(verdict.figures["limit"][name]["shares"])
        verdict.require(f"{name}: share of the engine at {MANY}", round(share, 3), 0.95, at_least=True)


def _tell(verdict: Verdict, name: str, samples: list[Taken], limits: list[float]) -> None:
    shares = [sample[0] / limit for sample, limit in zip(samples, limits, strict=True)]
    per_s, cpu_us, load_us = (statistics.median(column) for column in zip(*samples, strict=True))
    told = {"per_s": per_s, "cpu_us": cpu_us, "load_us": load_us, "shares": shares}
    verdict.figures.setdefault("limit", {})[name] = told
    spread = f"{statistics.median(shares):.2f} ({min(shares):.2f}..{max(shares):.2f})"
    print(f"{name:<24} {per_s:>8,.0f} images/s  {cpu_us:>6.0f} µs  load {load_us:>4.0f} µs  {spread}")


async def _engine(graph: Path, rows: int, seconds: float) -> Taken:
    """A process for each core, all at once."""
    command = [sys.executable, "-m", "benchmarks.bare_engine", str(graph), "--rows", str(rows)]
    command += ["--seconds", str(seconds)]
    running = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    told = [json.loads(out) for out, _ in [await process.communicate() for process in running]]
    return sum(one["per_s"] for one in told), statistics.mean(one["cpu_us"] for one in told), 0.0


async def _http(address: Address, asked: list[Question], connections: int, seconds: float, images: int) -> Taken:
    before_s, load_s = family_cpu_s(address.pid), time.process_time()
    requests, per_s = await right_answers(address.http, asked, connections, seconds)
    spent_s, load_s = family_cpu_s(address.pid) - before_s, time.process_time() - load_s
    done = requests * images
    return per_s * images, spent_s / done * 1e6, load_s / done * 1e6


async def _grpc(address: Address, method: str, request: bytes, seconds: float) -> Taken:
    before_s, load_s, started_s = family_cpu_s(address.pid), time.process_time(), time.monotonic()
    calls = await raw_closed_loop(address.grpc, method, request, connections=FEW_CLIENTS, seconds=seconds)
    took_s, load_s = time.monotonic() - started_s, time.process_time() - load_s
    spent_s, images = family_cpu_s(address.pid) - before_s, calls * MANY
    return images / took_s, spent_s / images * 1e6, load_s / images * 1e6


def _classify_request(pictures: Pictures) -> bytes:
    pixels = _pixels(pictures, MANY)
    tensor = classifier_pb2.PixelTensor(shape=pixels.shape, data=pixels.tobytes())
    return classifier_pb2.ClassifyRequest(model=pictures.model, pixels=tensor, top_k=1).SerializeToString()


def _infer_request(pictures: Pictures) -> bytes:
    pixels = _pixels(pictures, MANY)
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=pixels.shape)
    return inference_pb2.ModelInferRequest(
        model_name=pictures.model, inputs=[tensor], raw_input_contents=[pixels.tobytes()]
    ).SerializeToString()


async def _binary(address: Address, pictures: Pictures, rows: int) -> list[Question]:
    """A V2 request with binary tensors both ways, with what an idle server answers."""
    question = v2_question(address, pictures.model, _pixels(pictures, rows))
    connection = await connect(address.http)
    status, body = await connection.ask_nowait(question.request)
    connection.close()
    if status != OK:
        raise RuntimeError(f"an idle server answered {status}: {body.decode()}")
    return [Question(question.request, body[: body.index(b"}}]}")])]


def _pixels(pictures: Pictures, rows: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (rows, *pictures.shape), np.uint8)
