"""Real bundles for tests: tiny ONNX graphs with a manifest, digests and golden pictures, as export writes them."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from protos.bundle_pb2 import Manifest

SIDE_PX = 4
CHANNELS = 3
LABELS = ("cat", "dog", "frog")
TRAP = 200  # a first pixel that makes a trapped graph raise
FEATURES = SIDE_PX * SIDE_PX * CHANNELS


def weights(seed: int) -> NDArray[np.float32]:
    """A classifier of its own for each seed."""
    return np.random.default_rng(seed).normal(0, 0.5, (FEATURES, len(LABELS))).astype(np.float32)


def probabilities(matrix: NDArray[np.float32], rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the graph of these weights answers, worked out in NumPy."""
    logits = (rows.reshape(len(rows), -1).astype(np.float32) / 255) @ matrix
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random rows, `uint8[count, 4, 4, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE_PX, SIDE_PX, CHANNELS), dtype=np.uint8)


def encode(row: NDArray[np.uint8]) -> bytes:
    """One row as a PNG file, which loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, "PNG")
    return buffer.getvalue()


def graph(
    matrix: NDArray[np.float32], *, work: int = 0, fails_on: int | None = None, output: str = "probabilities"
) -> bytes:
    """An ONNX model: uint8 pixels in, probabilities out.

    Args:
        matrix: Its weights.
        work: Adds so many large matrix products that change nothing, to make it slow.
        fails_on: A batch whose first pixel has this value makes it raise.
        output: The name of its output.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array(1 / 255, dtype=np.float32), "scale"),
        numpy_helper.from_array(matrix, "weights"),
    ]
    flat = _add_work(nodes, constants, work) if work else "flat"
    if fails_on is not None:
        flat = _add_trap(nodes, constants, flat, fails_on)
    nodes += [
        helper.make_node("MatMul", [flat, "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [output], axis=-1),
    ]
    shape: list[str | int | None] = ["batch", SIDE_PX, SIDE_PX, CHANNELS]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", len(LABELS)])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def write_plain(models: Path, name: str, version: int, *, seed: int | None = None) -> Path:
    """A folder with a `model.onnx` and nothing else."""
    folder = models / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph(weights(version if seed is None else seed)))
    return folder


def write_bundle(
    models: Path,
    name: str,
    version: int,
    *,
    seed: int | None = None,
    variants: dict[str, bytes] | None = None,
    agreement: float = 1.0,
    measured_rows: int = 10_000,
    golden_rows: int = 16,
    **fields: Any,
) -> Path:
    """A bundle in its place, renamed there when it is complete.

    Args:
        models: The models folder.
        name: The model.
        version: Its version.
        seed: Of the weights; the version where it is not given, so every version answers otherwise.
        variants: Name → graph; the float32 one of these weights where it is not given.
        agreement: What the manifest claims of every variant.
        measured_rows: And over how many rows.
        golden_rows: Pictures in the golden set; 0 for none.
        fields: Fields of the manifest that differ.
    """
    matrix = weights(version if seed is None else seed)
    temporary, folder = models / name / f".{version}.partial", models / name / str(version)
    temporary.mkdir(parents=True)
    manifest = Manifest(schema=1, name=name, version=version, labels=LABELS, architecture="tiny")
    manifest.inputs.add(name="image", datatype="UINT8", shape=[-1, SIDE_PX, SIDE_PX, CHANNELS])
    manifest.outputs.add(name="probabilities", datatype="FP32", shape=[-1, len(LABELS)])
    preprocessing = manifest.preprocessing
    preprocessing.height, preprocessing.width, preprocessing.channels = SIDE_PX, SIDE_PX, CHANNELS
    preprocessing.resize, preprocessing.scale = "bilinear-antialias", 1 / 255
    for variant, data in (variants or {"float32": graph(matrix)}).items():
        file = "model.onnx" if variant == "float32" else f"model.{variant}.onnx"
        (temporary / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        manifest.variants.add(
            name=variant,
            file=file,
            sha256=digest,
            size_bytes=len(data),
            agreement=agreement,
            measured_rows=measured_rows,
        )
    if golden_rows:
        _write_golden(temporary, manifest, matrix, golden_rows)
    manifest.MergeFrom(Manifest(**fields))
    write_manifest(temporary, manifest)
    temporary.rename(folder)
    return folder


def write_trapped(models: Path, version: int) -> None:
    """A version of "pets" that raises for a batch with a first pixel of `TRAP`, and has nothing to be tried with."""
    variants = {"float32": graph(weights(version), fails_on=TRAP)}
    write_bundle(models, "pets", version, variants=variants, golden_rows=0)


def write_policy(models: Path, text: str) -> None:
    """The traffic policy of "pets", written beside and renamed, as an operator should."""
    (models / "pets" / ".policy.json").write_text(text)
    (models / "pets" / ".policy.json").rename(models / "pets" / "policy.json")


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest, to be changed and written back."""
    return json_format.Parse((folder / "manifest.json").read_text(), Manifest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a manifest as export does."""
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True)
    (folder / "manifest.json").write_text(text)


def _write_golden(folder: Path, manifest: Manifest, matrix: NDArray[np.float32], count: int) -> None:
    rows = pictures(count)
    files = [encode(row) for row in rows]
    answers = probabilities(matrix, rows)
    np.savez(
        folder / "golden.npz",
        encoded=np.frombuffer(b"".join(files), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=answers.argmax(axis=1),
        probabilities=answers,
    )
    golden = manifest.golden
    golden.file, golden.images, golden.tolerance = "golden.npz", count, 1e-4
    golden.sha256 = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()


def _add_work(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], count: int) -> str:
    # Two different matrices in turn, so that no optimizer folds them; their product is zero and is added to the rows.
    size = 256
    spread = np.zeros((FEATURES, size), dtype=np.float32)
    spread[:, 0] = 1.0
    constants += [
        numpy_helper.from_array(spread, "spread"),
        numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.01, (size, size)).astype(np.float32), "busy"),
        numpy_helper.from_array(np.zeros((size, FEATURES), dtype=np.float32), "nothing"),
    ]
    nodes.append(helper.make_node("MatMul", ["flat", "spread"], ["busy0"]))
    for step in range(count):
        nodes.append(helper.make_node("MatMul", [f"busy{step}", "busy"], [f"product{step}"]))
        nodes.append(helper.make_node("Tanh", [f"product{step}"], [f"busy{step + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"busy{count}", "nothing"], ["zero"]))
    nodes.append(helper.make_node("Add", ["flat", "zero"], ["worked"]))
    return "worked"


def _add_trap(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], flat: str, value: int) -> str:
    # Gather's index is 1 (out of range in a table of one) where any row's first pixel has the value, else 0.
    constants += [
        numpy_helper.from_array(np.array(value, dtype=np.uint8), "trap_value"),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "trap_start"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "trap_end"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "trap_axis"),
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "trap_table"),
    ]
    nodes += [
        helper.make_node("Flatten", ["image"], ["trap_flat"], axis=1),
        helper.make_node("Slice", ["trap_flat", "trap_start", "trap_end", "trap_axis"], ["trap_pixel"]),
        helper.make_node("Equal", ["trap_pixel", "trap_value"], ["trap_hit"]),
        helper.make_node("Cast", ["trap_hit"], ["trap_index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["trap_table", "trap_index"], ["trap_zero"], axis=0),
        helper.make_node("Add", [flat, "trap_zero"], ["trapped"]),
    ]
    return "trapped"
