"""`python -m benchmarks idle`: one request at a time on an idle server; what is added to the bare ONNX Runtime call."""

import argparse
import statistics
import time
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.http_load import connect, post
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.server_process import Address, serve
from protos import classifier_pb2, classifier_pb2_grpc

ROUNDS = 20
CALLS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)


def run_command(arguments: argparse.Namespace) -> int:
    """Interleaves bare calls with served ones; see the module."""
    verdict = Verdict()
    bundle = newest_bundle(arguments.models, arguments.model)
    with serve(arguments.models, ["--variant", "int8", *arguments.server_args.split()]) as address:
        run(_measure(address, bundle, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, bundle: Path, verdict: Verdict) -> None:
    pictures = golden_pictures(bundle)
    row = np.zeros((1, *pictures.shape), np.uint8)
    bare, by_http, by_grpc = [], [], []
    session = _session(bundle / "model.int8.onnx")
    connection = await connect(address.http)
    question = post(f"{address.http}/predict/{pictures.model}", pictures.files[0], "application/octet-stream")
    pixels = classifier_pb2.PixelTensor(shape=list(row.shape), data=row.tobytes())
    request = classifier_pb2.ClassifyRequest(model=pictures.model, pixels=pixels, top_k=1)
    async with grpc.aio.insecure_channel(address.grpc) as channel:
        stub: classifier_pb2_grpc.ClassifierAsyncStub = classifier_pb2_grpc.ClassifierStub(channel)
        for _ in range(ROUNDS):
            bare += [_timed(session, row) for _ in range(CALLS)]
            for _ in range(CALLS):
                started_s = time.perf_counter()
                status, _ = await connection.ask_nowait(question.request)
                by_http.append(time.perf_counter() - started_s)
                assert status == 200  # noqa: PLR2004
            for _ in range(CALLS):
                started_s = time.perf_counter()
                await stub.Classify(request)
                by_grpc.append(time.perf_counter() - started_s)
    connection.close()
    medians_ms = {
        name: statistics.median(values) * 1000
        for name, values in (("bare", bare), ("http", by_http), ("grpc", by_grpc))
    }
    verdict.figures["medians_ms"] = medians_ms
    verdict.require("added by HTTP (one uploaded picture), ms", round(medians_ms["http"] - medians_ms["bare"], 3), 0.7)
    verdict.require("added by gRPC (one row of pixels), ms", round(medians_ms["grpc"] - medians_ms["bare"], 3), 1.2)


def _session(path: Path) -> object:
    import onnxruntime  # noqa: PLC0415  only this measurement needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _timed(session: object, row: NDArray[np.uint8]) -> float:
    started_s = time.perf_counter()
    session.run(None, {"image": row})  # type: ignore[attr-defined]
    return time.perf_counter() - started_s
