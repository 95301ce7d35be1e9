"""`python -m benchmarks peak`: the most that HTTP answers, by payload and connections, and what it costs in CPU time.

Every payload is sent in two ways by turns: as it is, for the hot path, and with a header that leaves it to aiohttp.
"""

import argparse
import statistics
from typing import Any, Final

import numpy as np
import orjson

from benchmarks.closed import right_answers
from benchmarks.http_load import Question, connect, post
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.processes import family_cpu_s
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.server_process import Address, serve

OK: Final = 200
ASIDE: Final = "Cookie: a=b"  # a header that the hot path leaves to aiohttp, and that changes nothing there
WAYS: Final = {"hot": (), "aiohttp": (ASIDE,)}
PAYLOADS: Final = ("upload", "json", "binary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated, by turns (default: 3)")
    parser.add_argument("--connections", default="32,128", help="how many, joined by commas (default: 32,128)")
    parser.add_argument("--payloads", default=",".join(PAYLOADS), help=f"of {', '.join(PAYLOADS)} (default: all)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures every payload at every number of connections; see the module."""
    verdict = Verdict()
    with serve(arguments.models, arguments.server_args.split()) as address:
        run(_measure(address, arguments, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    rows: list[dict[str, Any]] = verdict.figures.setdefault("peak", [])
    for payload in arguments.payloads.split(","):
        asked = {way: await _questions(address, arguments, payload, headers) for way, headers in WAYS.items()}
        for connections in map(int, arguments.connections.split(",")):
            taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(arguments.rounds):
                for way in WAYS:
                    taken[way].append(await _take(address, asked[way], connections, arguments.seconds))
            for way, samples in taken.items():
                per_s, cpu_us = (statistics.median(column) for column in zip(*samples, strict=True))
                row = {"payload": payload, "connections": connections, "way": way}
                rows.append(row | {"per_s": round(per_s), "cpu_us": round(cpu_us, 1), "samples": samples})
                print(f"{payload:<7} {connections:>4} connections  {way:<8} {per_s:>7,.0f} per s  {cpu_us:>6.0f} µs")


async def _take(address: Address, questions: list[Question], connections: int, seconds: float) -> tuple[float, float]:
    """Right answers in a second, and the CPU time of the server's processes for each request, in microseconds."""
    before_s = family_cpu_s(address.pid)
    requests, per_s = await right_answers(address.http, questions, connections, seconds)
    return per_s, (family_cpu_s(address.pid) - before_s) / requests * 1e6


async def _questions(
    address: Address, arguments: argparse.Namespace, payload: str, headers: tuple[str, ...]
) -> list[Question]:
    """One payload for each golden picture, with what an idle server answers."""
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    asked, connection = [], await connect(address.http)
    generator = np.random.default_rng(0)
    for file in pictures.files:
        pixels = generator.integers(0, 256, (1, *pictures.shape), np.uint8)
        question = _question(address, pictures.model, payload, file, pixels, headers)
        status, body = await connection.ask_nowait(question.request)
        if status != OK:
            raise RuntimeError(f"an idle server answered {status}: {body.decode()}")
        asked.append(Question(question.request, _right(payload, body)))
    connection.close()
    return asked


def _question(
    address: Address, model: str, payload: str, file: bytes, pixels: Any, headers: tuple[str, ...]
) -> Question:
    plain = f"{address.http}/predict/{model}"
    if payload == "upload":
        return post(plain, file, "application/octet-stream", headers=headers)
    if payload == "json":
        return post(plain, orjson.dumps({"data": pixels.tolist()}), "application/json", headers=headers)
    return v2_question(address, model, pixels, headers)


def v2_question(address: Address, model: str, pixels: Any, headers: tuple[str, ...] = ()) -> Question:
    """A request of the Open Inference Protocol with binary tensors both ways.

    Args:
        address: The server.
        model: The model's name; its input is called `image`.
        pixels: `uint8[rows, height, width, channels]`.
        headers: Further header lines.
    """
    raw = pixels.tobytes()
    tensor = {"name": "image", "shape": pixels.shape, "datatype": "UINT8", "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    length = f"Inference-Header-Content-Length: {len(head)}"
    url = f"{address.http}/v2/models/{model}/infer"
    return post(url, head + raw, "application/octet-stream", headers=(length, *headers))


def _right(payload: str, body: bytes) -> bytes:
    """The part of an answer that any batch gives alike: the classes, or the shape in front of the bytes."""
    if payload == "binary":
        return body[: body.index(b"}}]}")]
    return b'"predictions":' + orjson.dumps(orjson.loads(body)["predictions"])
