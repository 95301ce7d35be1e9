"""Small real bundles: an ONNX graph that tells pictures apart by their brightness, with a manifest that fits it."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

LABELS = ("dark", "dim", "bright")


def write_bundle(
    models: Path,
    name: str,
    version: int,
    *,
    height: int = 8,
    width: int = 8,
    channels: int = 1,
    work: int = 0,
    explained: bool = False,
) -> Path:
    """Writes `<models>/<name>/<version>` as export does: into a hidden folder, renamed when it is whole.

    Args:
        models: The models folder.
        name: The model.
        version: Its version.
        height: Of its input.
        width: Of its input.
        channels: Of its input.
        work: Size of a matrix multiplied with itself 8 times for each batch, to make the model slow.
        explained: Whether it brings `model.explain.onnx`, the class-activation map.
    """
    parent = models / name
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f".{version}.partial"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(_graph(height, width, channels, work))
    pictures = [picture(level, height, width, channels) for level in (10, 120, 250)]
    _write_golden(folder / "golden.npz", pictures)
    manifest = _manifest(folder, name, version, (height, width, channels))
    if explained:
        manifest["explanation"] = _write_explanation(folder, height, width)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    final = parent / str(version)
    folder.rename(final)
    return final


def picture(level: int, height: int = 8, width: int = 8, channels: int = 1, form: str = "PNG") -> bytes:
    """An encoded picture of one brightness."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, level, np.uint8)).save(buffer, form)
    return buffer.getvalue()


def expected_probabilities(level: float) -> np.ndarray:
    """What the graph answers for a picture of one brightness."""
    mean = np.float32(level) / 255
    scores = np.array([-20.0, 0.0, 20.0], np.float32) * mean + np.array([6.0, 0.0, -14.0], np.float32)
    exponents = np.exp(scores - scores.max())
    return np.asarray(exponents / exponents.sum(), np.float32)


def activation_map(pixels: np.ndarray, index: int) -> np.ndarray:
    """What an explained bundle's graph says of each place for one class: the score of a picture that is all like it.

    Args:
        pixels: `uint8[height, width, channels]`.
        index: The class.
    """
    means = pixels.astype(np.float32).mean(axis=2) / 255
    return np.asarray([-20.0, 0.0, 20.0][index] * means + [6.0, 0.0, -14.0][index], np.float32)


def _write_explanation(folder: Path, height: int, width: int) -> dict[str, object]:
    """The graph with its dense layer applied at every place too, and what a manifest says of it."""
    model = onnx.load(folder / "model.onnx")
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["pixels"], ["places"], axes=[3], keepdims=1),
            helper.make_node("MatMul", ["places", "weights"], ["weighted"]),
            helper.make_node("Add", ["weighted", "bias"], ["activation_map"]),
        ]
    )
    shape: list[str | int | None] = ["batch", height, width, len(LABELS)]
    model.graph.output.append(helper.make_tensor_value_info("activation_map", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    (folder / "model.explain.onnx").write_bytes(data)
    return {
        "graph": {
            "file": "model.explain.onnx",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": str(len(data)),
        },
        "method": "cam",
        "output": {
            "name": "activation_map",
            "datatype": "FP32",
            "shape": ["-1", str(height), str(width), str(len(LABELS))],
        },
    }


def _graph(height: int, width: int, channels: int, work: int) -> bytes:
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["means"]),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities" if not work else "quick"], axis=1),
    ]
    constants: dict[str, np.ndarray] = {
        "column": np.array([-1, 1], np.int64),
        "weights": np.array([[-20.0, 0.0, 20.0]], np.float32) / 255,
        "bias": np.array([6.0, 0.0, -14.0], np.float32),
    }
    if work:
        constants |= {"square": np.zeros((work, work), np.float32)}
        # The matrix gets the batch's own values added, so that it cannot be folded away; they are zeros times it.
        nodes += [
            helper.make_node("ReduceSum", ["means"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["square", "sum"], ["product0"]),
            *(helper.make_node("MatMul", [f"product{i}", f"product{i}"], [f"product{i + 1}"]) for i in range(8)),
            helper.make_node("ReduceMax", ["product8"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["quick", "nothing"], ["probabilities"]),
        ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _write_golden(path: Path, pictures: list[bytes]) -> None:
    np.savez(
        path,
        encoded=np.frombuffer(b"".join(pictures), np.uint8),
        offsets=np.cumsum([0, *map(len, pictures)]),
        labels=np.arange(3),
        probabilities=np.stack([expected_probabilities(level) for level in (10, 120, 250)]).astype(np.float32),
    )


def _manifest(folder: Path, name: str, version: int, shape: tuple[int, int, int]) -> dict[str, object]:
    graph, golden = (folder / "model.onnx").read_bytes(), (folder / "golden.npz").read_bytes()
    return {
        "schema": 1,
        "name": name,
        "version": str(version),
        "architecture": "brightness",
        "framework": "onnx.helper",
        "parameters": "6",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": ["-1", *map(str, shape)]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": ["-1", str(len(LABELS))]}],
        "labels": list(LABELS),
        "preprocessing": {
            "height": shape[0],
            "width": shape[1],
            "channels": shape[2],
            "resize": "bilinear-antialias",
            "scale": 1 / 255,
        },
        "variants": [
            {
                "name": "float32",
                "file": "model.onnx",
                "sha256": hashlib.sha256(graph).hexdigest(),
                "size_bytes": str(len(graph)),
                "accuracy": 1.0,
                "agreement": 1.0,
            }
        ],
        "golden": {
            "file": "golden.npz",
            "sha256": hashlib.sha256(golden).hexdigest(),
            "images": 3,
            "tolerance": 1e-4,
        },
        "training": {"run": "1", "metrics": {"accuracy": 1.0}},
    }
