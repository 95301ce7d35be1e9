"""Closed-loop gRPC load on the plain interface: many calls in flight over a few connections."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
import numpy as np

from benchmarks.http_load import quantiles_ms
from benchmarks.pictures import Pictures
from protos import classifier_pb2, classifier_pb2_grpc

# What a client is told of a server that has stopped listening: nothing was accepted, so nothing was lost.
NOT_ACCEPTED = ("failed to connect", "Connection refused", "Endpoint closing", "draining", "stopping")


@dataclass
class GrpcTally:
    """What became of the calls.

    Args:
        took_s: Of each answered call.
        failures: Count of each failure's code and text.
        lost: Calls that were accepted and got no answer.
    """

    took_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def summary(self) -> dict[str, object]:
        """Counts, and quantiles in milliseconds."""
        return {
            "answered": len(self.took_s),
            "failures": dict(self.failures),
            "lost": self.lost,
            "answered_ms": quantiles_ms(np.array(self.took_s)),
        }


def requests_of(pictures: Pictures) -> list[classifier_pb2.ClassifyRequest]:
    """One request for each picture."""
    return [
        classifier_pb2.ClassifyRequest(
            model=pictures.model, encoded=classifier_pb2.EncodedImages(images=[file]), top_k=1
        )
        for file in pictures.files
    ]


async def grpc_closed_loop(
    target: str, pictures: Pictures, *, connections: int, in_flight: int, seconds: float
) -> GrpcTally:
    """Keeps so many calls under way on each connection for so long, or until nobody listens any more.

    Args:
        target: The server.
        pictures: Sent in turn.
        connections: TCP connections.
        in_flight: Calls under way on each.
        seconds: How long.
    """
    tally, end_s, asked = GrpcTally(), time.monotonic() + seconds, itertools.cycle(requests_of(pictures))

    async def client(stub: "classifier_pb2_grpc.ClassifierAsyncStub") -> None:
        while (started_s := time.monotonic()) < end_s:
            try:
                await stub.Classify(next(asked), timeout=10)
            except grpc.aio.AioRpcError as error:
                text = f"{error.code().name}: {error.details()}"
                tally.failures[text] += 1
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    continue
                tally.lost += not any(known in text for known in NOT_ACCEPTED)
                return
            tally.took_s.append(time.monotonic() - started_s)

    channels = [
        grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])
        for _ in range(connections)
    ]
    stubs: list[classifier_pb2_grpc.ClassifierAsyncStub] = [
        classifier_pb2_grpc.ClassifierStub(channel) for channel in channels
    ]
    await asyncio.gather(*(client(stub) for stub in stubs for _ in range(in_flight)))
    await asyncio.gather(*(channel.close() for channel in channels))
    return tally
