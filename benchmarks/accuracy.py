"""`python -m benchmarks accuracy`: a data set's own files through a server, three ways, against Keras on the same."""

import argparse
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.http_load import Connection, connect, post
from benchmarks.pictures import newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish, run
from benchmarks.server_process import Address, serve
from protos import classifier_pb2, classifier_pb2_grpc

Ask = Callable[["Example"], Awaitable[int]]


@dataclass(frozen=True)
class Example:
    """One file of the test split.

    Args:
        file: Its bytes.
        pixels: As Keras's own loader reads it, uint8[h, w, c].
        label: Its class.
    """

    file: bytes
    pixels: NDArray[np.uint8]
    label: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder <root>/test/<class>/<file>")
    parser.add_argument("--run", type=Path, required=True, help="the run folder that the bundle was exported from")
    parser.add_argument("--files", type=int, default=1000, help="how many test files, evenly by class (default: 1000)")
    parser.add_argument(
        "--bound", type=float, default=0.2, help="largest difference from Keras, in points (default: 0.2)"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Compares served top-1 accuracy with Keras's; see the module."""
    verdict = Verdict()
    bundle = newest_bundle(arguments.models, arguments.model)
    manifest = json.loads((bundle / "manifest.json").read_text())
    examples = _read(arguments.data / "test", manifest, arguments.files)
    labels = np.array([example.label for example in examples])
    right = float(np.mean(_keras_classes(arguments.run, examples) == labels))
    verdict.figures |= {"files": len(examples), "keras": right}
    print(f"Keras: {right:.2%} of {len(examples)} files")
    for variant in [variant["name"] for variant in manifest["variants"]]:
        with serve(arguments.models, ["--variant", variant, *arguments.server_args.split()]) as address:
            run(_compare(address, manifest["name"], variant, examples, right, arguments.bound, verdict))
    return finish(arguments, verdict)


def _read(root: Path, manifest: dict[str, Any], count: int) -> list[Example]:
    import keras  # noqa: PLC0415  takes seconds to import

    shape = manifest["preprocessing"]
    mode = "rgb" if shape["channels"] == 3 else "grayscale"  # noqa: PLR2004
    files = [sorted((root / name).iterdir()) for name in manifest["labels"]]
    picked = itertools.islice(itertools.chain.from_iterable(zip(*files, strict=False)), count)
    examples = []
    for path in picked:
        picture = keras.utils.load_img(path, color_mode=mode, target_size=(shape["height"], shape["width"]))
        pixels = np.asarray(picture, np.uint8).reshape(shape["height"], shape["width"], shape["channels"])
        examples.append(Example(path.read_bytes(), pixels, manifest["labels"].index(path.parent.name)))
    return examples


def _keras_classes(run_folder: Path, examples: list[Example]) -> NDArray[np.int64]:
    import keras  # noqa: PLC0415

    model = keras.saving.load_model(run_folder / "model.keras")
    rows = np.stack([example.pixels for example in examples]).astype(np.float32)
    return np.asarray(np.argmax(model.predict(rows, batch_size=256, verbose=0), axis=1), np.int64)


async def _compare(
    address: Address, name: str, variant: str, examples: list[Example], keras: float, bound: float, verdict: Verdict
) -> None:
    connection = await connect(address.http)
    async with grpc.aio.insecure_channel(address.grpc) as channel:
        ways: dict[str, Ask] = {
            "JSON": lambda example: _by_json(connection, address, name, example),
            "upload": lambda example: _by_upload(connection, address, name, example),
            "gRPC": lambda example: _by_grpc(classifier_pb2_grpc.ClassifierStub(channel), name, example),
        }
        for way, ask in ways.items():
            served = [await ask(example) for example in examples]
            right = float(np.mean([given == e.label for given, e in zip(served, examples, strict=True)]))
            print(f"{variant} by {way}: {right:.2%}")
            difference = round(abs(right - keras) * 100, 3)
            if variant == "float32":
                verdict.require(f"{variant} by {way}, points from Keras", difference, bound)
            else:
                verdict.figures[f"{variant} by {way}, points from Keras"] = difference
    connection.close()


async def _by_json(connection: Connection, address: Address, name: str, example: Example) -> int:
    body = orjson.dumps({"data": example.pixels.tolist(), "scale": "0-255"})
    return await _ask(connection, address, name, body, "application/json")


async def _by_upload(connection: Connection, address: Address, name: str, example: Example) -> int:
    return await _ask(connection, address, name, example.file, "image/jpeg")


async def _ask(connection: Connection, address: Address, name: str, body: bytes, content_type: str) -> int:
    status, answer = await connection.ask_nowait(post(f"{address.http}/predict/{name}", body, content_type).request)
    if status != 200:  # noqa: PLR2004
        raise RuntimeError(f"{status}: {answer.decode()}")
    return int(orjson.loads(answer)["predictions"][0])


async def _by_grpc(stub: "classifier_pb2_grpc.ClassifierAsyncStub", name: str, example: Example) -> int:
    encoded = classifier_pb2.EncodedImages(images=[example.file])
    answer = await stub.Classify(classifier_pb2.ClassifyRequest(model=name, encoded=encoded, top_k=1), timeout=10)
    return int(answer.predictions[0].classes[0].index)
