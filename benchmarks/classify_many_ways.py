"""One client of `python -m benchmarks classify-many`, in a process of its own: single pictures, as fast as they go.

    unary           grpc.aio's stub, one call for each picture
    streams         the same over ClassifyStream; no message is made or read meanwhile: hardly a cheaper client
    async, sync     `classify_many` of the client package, as a user calls it

Prints one line of JSON: `{"per_s": 4000.0, "cpu_us": 100.0, "failed": 0}`, with this process's CPU for each picture.
"""

import argparse
import asyncio
import inspect
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from benchmarks.pictures import golden_pictures, newest_bundle
from protos import classifier_pb2

SERVICE: Final = "/shoal.v1.Classifier/"
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


class Load(NamedTuple):
    """What is to be done.

    Args:
        target: The server.
        model: Its model.
        files: Pictures, sent in turn.
        total: How many in all.
    """

    target: str
    model: str
    files: tuple[bytes, ...]
    total: int

    def pictures(self) -> Iterator[bytes]:
        """As many as there are to be, in turn."""
        return itertools.islice(itertools.cycle(self.files), self.total)

    def messages(self) -> Iterator[bytes]:
        """A serialized request for each."""
        made = [
            classifier_pb2.ClassifyRequest(
                model=self.model, encoded=classifier_pb2.EncodedImages(images=[file]), top_k=1
            ).SerializeToString()
            for file in self.files
        ]
        return itertools.islice(itertools.cycle(made), self.total)


async def ask_unary(load: Load, *, channels: int, in_flight: int) -> int:
    """Makes raw calls, so many at a time in all, and tells how many failed."""
    messages, failed = load.messages(), 0

    async def one_after_another(channel: grpc.aio.Channel) -> None:
        nonlocal failed
        method: Any = channel.unary_unary(SERVICE + "Classify")
        for message in messages:
            try:
                await method(message)
            except grpc.RpcError:
                failed += 1

    opened = [grpc.aio.insecure_channel(load.target, OWN_CONNECTION) for _ in range(channels)]
    await asyncio.gather(*(one_after_another(opened[number % channels]) for number in range(in_flight)))
    await asyncio.gather(*(channel.close() for channel in opened))
    return failed


async def ask_streams(load: Load, *, channels: int, in_flight: int) -> int:
    """Keeps raw streams full, each on a connection of its own, and tells how many answers were errors."""
    messages, answers = load.messages(), list[bytes]()

    async def drive(channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_stream(SERVICE + "ClassifyStream")
        call, flying = method(), 0
        for message in itertools.islice(messages, in_flight // channels):
            await call.write(message)
            flying += 1
        while flying:
            answers.append(await call.read())
            if (message := next(messages, b"")) == b"":
                flying -= 1
            else:
                await call.write(message)
        await call.done_writing()

    opened = [grpc.aio.insecure_channel(load.target, OWN_CONNECTION) for _ in range(channels)]
    await asyncio.gather(*(drive(channel) for channel in opened))
    await asyncio.gather(*(channel.close() for channel in opened))
    return load.total - sum(bool(classifier_pb2.ClassifyResponse.FromString(answer).predictions) for answer in answers)


async def ask_async(load: Load) -> int:
    """Takes `AsyncGrpcClient.classify_many`, and tells how many are not the answer that comes most often."""
    from shoal_client import AsyncGrpcClient  # noqa: PLC0415  on the path only where it is measured

    async with AsyncGrpcClient(load.target) as client:
        many = client.classify_many(load.pictures(), model=load.model, top_k=1)
        return _count_odd([answer.best.label async for answer in many], load)


def ask_sync(load: Load) -> int:
    """Takes `GrpcClient.classify_many`, and tells how many are not the answer that comes most often."""
    from shoal_client import GrpcClient  # noqa: PLC0415  on the path only where it is measured

    with GrpcClient(load.target) as client:
        many = client.classify_many(load.pictures(), model=load.model, top_k=1)
        return _count_odd([answer.best.label for answer in many], load)


def _count_odd(labels: list[str], load: Load) -> int:
    """Answers out of order would differ from the first ones to the same pictures."""
    expected = itertools.cycle(labels[: len(load.files)])
    odd = sum(label != right for label, right in zip(labels, expected, strict=False))
    return odd + load.total - len(labels)


RAW: Final[dict[str, Callable[[Load], Awaitable[int]]]] = {
    "unary, 64 in flight": lambda load: ask_unary(load, channels=8, in_flight=64),
    "unary, 128 in flight": lambda load: ask_unary(load, channels=8, in_flight=128),
    "8 streams, 128 in flight": lambda load: ask_streams(load, channels=8, in_flight=128),
    "32 streams, 256 in flight": lambda load: ask_streams(load, channels=32, in_flight=256),
}
OURS: Final[dict[str, Callable[[Load], Awaitable[int] | int]]] = {"async": ask_async, "sync": ask_sync}


def measure(ask: Callable[[Load], Awaitable[int] | int], load: Load) -> dict[str, float]:
    """Runs one way to its end.

    Returns:
        Pictures per second of wall time, microseconds of this process's CPU for each, and how many failed.
    """
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    asked = ask(load)
    failed = asyncio.run(_wait(asked)) if inspect.isawaitable(asked) else asked
    took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return {"per_s": load.total / took_s, "cpu_us": cpu_s / load.total * 1e6, "failed": failed}


async def _wait(asked: Awaitable[int]) -> int:
    return await asked


def main() -> int:
    """Measures the way that is named, after a tenth of it to warm up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classify_many_ways")
    parser.add_argument("way", choices=(*RAW, *OURS))
    parser.add_argument("--target", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    pictures = golden_pictures(newest_bundle(arguments.models, arguments.model))
    load = Load(arguments.target, pictures.model, pictures.files, arguments.count)
    ask = (RAW | OURS)[arguments.way]
    measure(ask, load._replace(total=max(1, load.total // 10)))
    print(json.dumps(measure(ask, load)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
