"""A bundle that is spoiled after it was verified: the server refuses it, even where the hashes were made to fit."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.pipeline import Result
from server.errors import BundleError
from server.versions import LoadOptions, load_version
from tests.unit.server.models_harness import LOAD

pytestmark = pytest.mark.slow


def rehash(folder: Path, file: str) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    data = (folder / file).read_bytes()
    for variant in manifest["variants"]:
        if variant["file"] == file:
            variant |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": str(len(data))}
    path.write_text(json.dumps(manifest))


def scale_constant(folder: Path, file: str, ending: str, factor: float) -> None:
    model = onnx.load(folder / file)
    tensor = next(one for one in model.graph.initializer if one.name.endswith(ending))
    tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), tensor.name))
    onnx.save(model, folder / file)
    rehash(folder, file)


def swap_labels(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["labels"][3], manifest["labels"][8] = manifest["labels"][8], manifest["labels"][3]
    path.write_text(json.dumps(manifest))


def truncate(folder: Path) -> None:
    data = (folder / "model.int8.onnx").read_bytes()
    (folder / "model.int8.onnx").write_bytes(data[: len(data) // 2])


SPOILED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "scale of a layer": (
        "int8",
        lambda folder: scale_constant(folder, "model.int8.onnx", "DequantizeLinear_0.scale", 8.0),
        "expected the golden class for at least",
    ),
    "labels": ("auto", swap_labels, "expected the labels in the order of"),
    "normalisation": (
        "float32",
        lambda folder: scale_constant(folder, "model.onnx", "Mul_0.input1", 0.5),
        "expected the golden probabilities to within",
    ),
    "truncated file": ("auto", truncate, "bytes in"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_bundle_is_refused(exported: Result, tmp_path: Path, what: str) -> None:
    variant, spoil, reason = SPOILED[what]
    folder = tmp_path / "tiny" / "1"
    shutil.copytree(exported.folder, folder)
    options = LoadOptions(LOAD.executor, LOAD.batcher, variant)

    async def load() -> None:
        model = await load_version(folder, (), options)
        await model.retire()

    asyncio.run(load())  # as it was exported, it is served
    spoil(folder)
    with pytest.raises(BundleError, match=reason):
        asyncio.run(load())
