"""Keras to ONNX.

    model.keras ──load──▶ float32 ──tf2onnx──▶ graph ──tidy──▶ checked ModelProto

The result takes `image`, `uint8[batch, h, w, c]`, and gives `probabilities`, `float32[batch, classes]`: the server
feeds pixels as they were decoded, and scaling cannot be forgotten because it is in the graph.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError
from export.graph import INPUT, OUTPUT, operators, tidy
from export.quiet import noisy_library
from server.images import ImageSpec

PREDICT_ROWS: Final = 256


def load_keras(path: Path, image: ImageSpec, classes: int) -> Any:
    """Loads a Keras model and checks that it takes and gives what its run says.

    Args:
        path: A `.keras` file.
        image: What one row of its only input must be.
        classes: Width of its only output.

    Returns:
        The model with float32 arithmetic throughout, whatever precision it was trained in.

    Raises:
        ExportError: The file cannot be loaded, or takes or gives something else.
    """
    with noisy_library():
        import keras  # noqa: PLC0415 - seconds to import

        try:
            model = keras.models.load_model(path, compile=False)
        except (TypeError, ValueError, OSError, KeyError, NotImplementedError, AttributeError) as error:
            foreign = _foreign_layers(path)
            reason = f"it has {', '.join(foreign)}" if foreign else str(error).strip().splitlines()[0]
            raise ExportError(
                f"{path} cannot be loaded: {reason}; expected a Keras 3 model of built-in layers (code of custom and"
                " Lambda layers is not in the file): build it of Keras's own layers and train again"
            ) from error
        _check_interface(path, model, image, classes)
        return in_float32(model)


def _foreign_layers(path: Path) -> list[str]:
    # Class and name of each layer whose code the file does not bring; Keras's own message is a page that buries them.
    try:
        with ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (BadZipFile, KeyError, OSError, ValueError):
        return []
    return list(dict.fromkeys(_foreign_in(config)))


def _foreign_in(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        name, settings = part.get("class_name"), part.get("config")
        foreign = name == "Lambda" or not str(part.get("module") or "").startswith("keras")
        if name and foreign and isinstance(settings, dict) and settings.get("name"):
            yield f"{name} '{settings['name']}'"
        part = list(part.values())
    for value in part if isinstance(part, list) else ():
        yield from _foreign_in(value)


def _check_interface(path: Path, model: Any, image: ImageSpec, classes: int) -> None:
    expected = f"one input [n, {', '.join(map(str, image.shape))}] and one output [n, {classes}], as run.json says"
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or shapes != [(None, *image.shape), (None, classes)]:
        raise ExportError(f"{path}: expected {expected}, received {shapes}")


def in_float32(model: Any) -> Any:
    """Rebuilds a mixed-precision model in float32 with the same weights; a float32 one is returned as it is.

    Args:
        model: A Keras model.
    """
    import keras  # noqa: PLC0415 - seconds to import

    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):  # noqa: SLF001 - no public walk
        return model

    def rebuild(layer: Any) -> Any:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    clone = keras.models.clone_model(model, clone_function=rebuild)
    clone.set_weights(model.get_weights())
    return clone


def predict(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Keras's own answer, the reference that everything is compared with.

    Args:
        model: A Keras model of pixels.
        pixels: `uint8[n, h, w, c]`.

    Returns:
        `float32[n, classes]`.
    """
    with noisy_library():
        batches = [
            model.predict_on_batch(pixels[start : start + PREDICT_ROWS].astype(np.float32))
            for start in range(0, len(pixels), PREDICT_ROWS)
        ]
    return np.concatenate(batches).astype(np.float32)


def to_onnx(model: Any, *, opset: int, properties: dict[str, str] | None = None) -> ModelProto:
    """Converts a Keras model to a checked ONNX graph of uint8 pixels.

    Args:
        model: A float32 Keras model of pixels 0..255.
        opset: ONNX operator set.
        properties: `metadata_props` of the graph.

    Returns:
        The graph, cleaned up: the same model gives the same bytes.

    Raises:
        ExportError: An operator of the model does not exist in ONNX, or batch normalisation could not be folded.
    """
    with noisy_library():
        graph = _convert(model, opset)
    _refuse_unknown_operators(graph, opset)
    tidy(graph, properties)
    onnx.checker.check_model(graph, full_check=True)
    if "BatchNormalization" in operators(graph):
        raise ExportError("a BatchNormalization is left after conversion; place it directly after a convolution")
    return graph


def _convert(model: Any, opset: int) -> ModelProto:
    import tensorflow as tf  # noqa: PLC0415 - seconds to import
    import tf2onnx  # noqa: PLC0415 - imports tensorflow

    signature = [tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.uint8, name=INPUT)]

    def classify(image: Any) -> dict[str, Any]:
        return {OUTPUT: model(tf.cast(image, tf.float32), training=False)}

    # `from_function` and not `from_keras`: the Cast and both names come with it.
    function = tf.function(classify, input_signature=signature)
    graph, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=opset, custom_op_handlers={"Erfc": (_write_erfc, [])}
    )
    if not isinstance(graph, ModelProto):
        raise TypeError(f"expected tf2onnx to return a ModelProto, received {type(graph).__name__}")
    return graph


def _write_erfc(context: Any, node: Any, _name: str, _arguments: list[Any]) -> None:
    # TensorFlow computes Keras's exact GELU by erfc(x) = 1 − erf(x), which tf2onnx does not know and ONNX has half of.
    node.type, node.domain = "Erf", ""
    one = context.make_const(f"{node.name}/one", np.float32(1.0))
    context.insert_new_node_on_output(
        "Sub", node.output[0], name=f"{node.name}/complement", inputs=[one.output[0], node.output[0]]
    )


def _refuse_unknown_operators(graph: ModelProto, opset: int) -> None:
    # tf2onnx leaves what it cannot convert in the graph under its TensorFlow name.
    unknown = [node for node in graph.graph.node if not node.domain and not onnx.defs.has(node.op_type, opset, "")]
    if unknown:
        found = ", ".join(f"{node.op_type} ({node.name})" for node in unknown[:3])
        raise ExportError(
            f"expected operators that ONNX has in opset {opset}, received {found}; use another layer there or try a"
            " higher --opset"
        )
