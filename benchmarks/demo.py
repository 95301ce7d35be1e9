"""`python -m benchmarks demo`: the whole way on embedded data, each step the command that a user would run.

    train ─▶ evaluate ─▶ export ─▶ serve ─▶ classify every test image by JSON, upload and gRPC ─▶ compare ─▶ stop

Exit code 0 when the accuracy served by each of the three ways is the one that export verified.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.server_process import Address, serve
from protos import classifier_pb2, classifier_pb2_grpc

NAME = "digits"
SHOWN = 10


@dataclass(frozen=True)
class Answer:
    """What one way of asking answered for one image.

    Args:
        prediction: Class index.
        label: The class's name.
        confidence: Its probability.
        ms: Time from sending to having the answer, in milliseconds.
    """

    prediction: int
    label: str
    confidence: float
    ms: float


Ask = Callable[[NDArray[np.uint8]], Answer]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder, made anew (default: build/demo)")
    parser.add_argument("--epochs", type=int, help="train so many epochs instead of the default")


def run_command(arguments: argparse.Namespace) -> int:
    """Runs the demo.

    Args:
        arguments: As declared by `add_arguments`.

    Returns:
        0 when every way served the verified accuracy, else 1.
    """
    shutil.rmtree(arguments.work, ignore_errors=True)
    runs, models = arguments.work / "runs", arguments.work / "models"
    epochs = ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    _step("training", "train", "--data", "digits", "--name", NAME, "--runs", str(runs), *epochs)
    _step("training", "evaluate", NAME, "--runs", str(runs))
    _step("export", "create", "--name", NAME, "--runs", str(runs), "--models", str(models))
    with np.load(runs / NAME / "1" / "holdout.npz") as holdout:
        rows, labels = holdout["rows"], holdout["labels"]
    manifest = json.loads((models / NAME / "1" / "manifest.json").read_text())
    verdicts = [
        _served_equals_verified(models, variant, rows, labels, manifest["labels"]) for variant in manifest["variants"]
    ]
    return int(not all(verdicts))


def _step(module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    Console().rule(f"python -m {module} {' '.join(arguments)}")
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def _served_equals_verified(
    models: Path, variant: dict[str, Any], rows: NDArray[np.uint8], labels: NDArray[np.int64], names: list[str]
) -> bool:
    Console().rule(f"python -m server --models {models} --variant {variant['name']}")
    with serve(models, ["--variant", variant["name"]]) as address, grpc.insecure_channel(address.grpc) as channel:
        ways = {
            "JSON": lambda row: _by_json(address, row),
            "upload": lambda row: _by_upload(address, row),
            "gRPC": lambda row: _by_grpc(channel, row),
        }
        answers = {name: _ask_all(name, ask, rows) for name, ask in ways.items()}
    _show(answers, [names[label] for label in labels[:SHOWN]])
    verified = round(variant["accuracy"] * len(labels))
    served = {way: sum(a.prediction == b for a, b in zip(given, labels, strict=True)) for way, given in answers.items()}
    for way, right in served.items():
        verdict = "equals" if right == verified else "IS NOT"
        print(
            f"{variant['name']} by {way}: {right} of {len(labels)} right, {verdict} the {verified} verified by export"
        )
    return all(right == verified for right in served.values())


def _ask_all(way: str, ask: Ask, rows: NDArray[np.uint8]) -> list[Answer]:
    ask(rows[0])  # the first connection is not what we show
    return [ask(row) for row in track(rows, f"{way:7}", console=Console(), transient=True)]


def _by_json(address: Address, row: NDArray[np.uint8]) -> Answer:
    body = json.dumps({"data": row.tolist(), "scale": "0-255"}).encode()
    return _post(address, body, "application/json")


def _by_upload(address: Address, row: NDArray[np.uint8]) -> Answer:
    return _post(address, _png(row), "image/png")


def _post(address: Address, body: bytes, content_type: str) -> Answer:
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(f"{address.http}/predict/{NAME}", body, headers)  # noqa: S310 - our own server
    started_s = perf_counter()
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        answer = json.load(response)
    ms = (perf_counter() - started_s) * 1000
    return Answer(answer["predictions"][0], answer["labels"][0], answer["confidence"][0], ms)


def _by_grpc(channel: grpc.Channel, row: NDArray[np.uint8]) -> Answer:
    encoded = classifier_pb2.EncodedImages(images=[_png(row)])
    request = classifier_pb2.ClassifyRequest(model=NAME, encoded=encoded, top_k=1)
    started_s = perf_counter()
    response = classifier_pb2_grpc.ClassifierStub(channel).Classify(request, timeout=10)
    best = response.predictions[0].classes[0]
    return Answer(best.index, best.label, best.probability, (perf_counter() - started_s) * 1000)


def _png(row: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(buffer, "PNG")
    return buffer.getvalue()


def _show(answers: dict[str, list[Answer]], names: list[str]) -> None:
    table = Table("image", "label", *(f"{way}: prediction, confidence, ms" for way in answers))
    for i, name in enumerate(names):
        given = [f"{way[i].label}  {way[i].confidence:6.1%}  {way[i].ms:5.2f}" for way in answers.values()]
        table.add_row(f"test #{i}", name, *given)
    Console().print(table)
