"""What an answer costs on this machine, before anything is trained: the weights decide nothing about the time.

    .keras ──convert──▶ float32 ──quantize, on noise──▶ int8, each way to start ──timed──▶ the fastest

The same conversion, quantization and clock as an export's, so that the bundle that follows costs as much.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from export import convert, quantize, verify
from export.errors import ExportError
from export.quantize import Recipe
from export.quiet import noisy_library
from export.settings import FLOAT32

_ROWS: Final = 50
_SEED: Final = 0
_RANK: Final = 4  # rows, height, width, channels


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one ONNX Runtime thread, in calls of 16 images.

    Args:
        us_per_image: Of the fastest int8 graph, in microseconds.
        float32_us_per_image: Of the float32 graph.
        recipe: How the int8 graph was made.
        recipes_us_per_image: Of every int8 graph that was tried.
    """

    us_per_image: float
    float32_us_per_image: float
    recipe: str
    recipes_us_per_image: dict[str, float]

    def record(self) -> dict[str, Any]:
        """Returns the figures as JSON has them."""
        return asdict(self)


def measure(path: Path, *, opset: int) -> Cost:
    """Measures a model.

    Args:
        path: A `.keras` file: pixels 0..255 in, probabilities out, trained or not.
        opset: ONNX operator set.

    Raises:
        ExportError: The file is no such model, or an operator of it does not exist in ONNX.
    """
    model = _load(path)
    pixels = np.random.default_rng(_SEED).integers(0, 256, (_ROWS, *model.inputs[0].shape[1:]), dtype=np.uint8)
    graph = convert.to_onnx(model, opset=opset)
    prepared = quantize.prepare(graph)
    recipes = [Recipe("minmax", start) for start in quantize.starts(prepared)]
    sessions = {
        str(one): verify.open_session(quantize.quantize(prepared, pixels, one).SerializeToString()) for one in recipes
    }
    sessions[FLOAT32] = verify.open_session(graph.SerializeToString())
    measured = {name: 1e6 / speed for name, speed in verify.images_per_s(sessions, pixels).items()}
    float32_us = measured.pop(FLOAT32)
    fastest = min(measured, key=measured.__getitem__)
    return Cost(measured[fastest], float32_us, fastest, measured)


def forget() -> None:
    """Lets go of the models that were measured, which Keras would keep for names."""
    import keras  # noqa: PLC0415 - seconds to import

    keras.backend.clear_session()


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ExportError(f"expected a .keras file, found none at {path}")
    with noisy_library():
        import keras  # noqa: PLC0415 - seconds to import

        try:
            model = keras.models.load_model(path, compile=False)
        except (TypeError, ValueError, OSError, KeyError, NotImplementedError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"{path} cannot be loaded: {reason}; expected a Keras 3 model of built-in layers"
            ) from error
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        if len(shapes) != 1 or len(shapes[0]) != _RANK or None in shapes[0][1:]:
            raise ExportError(f"{path}: expected one input [n, height, width, channels], received {shapes}")
        return convert.in_float32(model)
