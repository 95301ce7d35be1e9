"""Shows why a model answers as it does: its predictions as a grid, Grad-CAM heat maps, feature maps.

run folder ──▶ model, pictures ──▶ samples.png, predictions.png, grad_cam.png, features/<number>-<layer>.png
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from server import images
from server.errors import UnsupportedImage
from server.images import ImageSpec
from training import picture_grids, run_arrays, runs
from training.errors import TrainingError
from training.figures import short
from training.grad_cam import feature_maps, grad_cam, last_maps, named_layer
from training.picture_grids import NEUTRAL, RIGHT, WRONG, Tile

DEFAULT_PICTURES: Final = 12
SHOWN_CHANNELS: Final = 32


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to explain.

    Args:
        name: What a person calls it.
        row: As the model takes it, `uint8[h, w, c]`.
        truth: The class it is of, where that is known.
    """

    name: str
    row: NDArray[np.uint8]
    truth: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was written.

    Args:
        files: The figures.
        layer: Whose maps Grad-CAM weighs, or nothing where the model has no convolution.
        predictions: For each picture its `name`, `truth` (a name, or nothing), `predicted` (a name) and `probability`.
    """

    files: tuple[Path, ...]
    layer: str | None
    predictions: tuple[dict[str, Any], ...]


def explain(run: runs.Run, pictures: Sequence[Picture], out: Path, layer: str | None = None) -> Explanation:
    """Draws a run's answers to some pictures and what they rest on.

    Args:
        run: A finished run.
        pictures: At least one; feature maps are those of the first.
        out: Folder for the figures; made if need be.
        layer: Whose maps Grad-CAM shall weigh; nothing: see `grad_cam.last_maps`.

    Returns:
        The figures `samples.png`, `predictions.png`, and for a model with convolutions `grad_cam.png` and
        `features/<number>-<layer>.png`.

    Raises:
        TrainingError: The model cannot be read or has no such layer, or the folder cannot be written.
    """
    model, names = load_model(run), run.record["labels"]
    rows = np.stack([picture.row for picture in pictures])
    target = named_layer(model, layer) if layer else last_maps(model, rows)
    probabilities = np.asarray(model(rows, training=False), dtype=np.float32)
    predictions = [_prediction(*pair, names) for pair in zip(pictures, probabilities, strict=True)]
    heats = None if target is None else grad_cam(model, rows, probabilities.argmax(axis=1), target)
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = _draw_answers(pictures, predictions, names, out)
        if heats is not None:
            files += [_draw_heats(pictures, predictions, heats, target.name, out)]
            files += _draw_features(feature_maps(model, rows[:1]), out / "features")
    except OSError as error:
        raise TrainingError(f"cannot write to {out} ({error}); choose another folder with --out") from error
    return Explanation(tuple(files), target.name if target else None, tuple(predictions))


def load_model(run: runs.Run) -> Any:
    """Loads a run's model.

    Raises:
        TrainingError: It cannot be read.
    """
    try:
        return keras.saving.load_model(run.path / "model.keras", compile=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TrainingError(f"cannot read the model of {run.path} ({error}); train again") from error


def sample_pictures(run: runs.Run, count: int = DEFAULT_PICTURES) -> list[Picture]:
    """Decodes the test files that a run keeps.

    Args:
        run: A finished run.
        count: At most so many.

    Raises:
        TrainingError: The run keeps none, or they cannot be read.
    """
    spec = ImageSpec(**run.record["image"])
    try:
        encoded, offsets, kept = run_arrays.read(run.path / "samples.npz", "encoded", "offsets", "labels")
        labels = kept.tolist()
        # Evenly spread: the files lie in the order of their classes.
        chosen = np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).round().astype(int)).tolist()
        files = [encoded[offsets[index] : offsets[index + 1]].tobytes() for index in chosen]
        return [
            Picture(f"sample {index}", images.decode(file, spec), labels[index])
            for index, file in zip(chosen, files, strict=True)
        ]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, UnsupportedImage) as error:
        raise TrainingError(f"cannot read {run.path / 'samples.npz'} ({error}); give pictures by --images") from error


def own_pictures(run: runs.Run, files: Sequence[Path]) -> list[Picture]:
    """Decodes a user's files as the model takes them.

    Args:
        run: A finished run; its record says what a row is.
        files: Encoded pictures.

    Raises:
        TrainingError: A file is missing or no picture.
    """
    spec = ImageSpec(**run.record["image"])
    try:
        return [Picture(file.name, images.decode(file.read_bytes(), spec)) for file in files]
    except (OSError, UnsupportedImage) as error:
        raise TrainingError(f"--images: {error}") from None


def _prediction(picture: Picture, probabilities: NDArray[np.float32], names: Sequence[str]) -> dict[str, Any]:
    best = int(probabilities.argmax())
    truth = None if picture.truth is None else names[picture.truth]
    return {
        "name": picture.name,
        "truth": truth,
        "predicted": names[best],
        "probability": float(probabilities[best]),
    }


def _draw_answers(
    pictures: Sequence[Picture], predictions: Sequence[Mapping[str, Any]], names: Sequence[str], out: Path
) -> list[Path]:
    samples = [
        Tile(one.row, short(one.name if one.truth is None else names[one.truth]))  # what it is, else what it is called
        for one in pictures
    ]
    answers = [Tile(one.row, *_told(said)) for one, said in zip(pictures, predictions, strict=True)]
    picture_grids.draw(samples, out / "samples.png", title="samples")
    picture_grids.draw(answers, out / "predictions.png", title="predictions")
    return [out / "samples.png", out / "predictions.png"]


def _draw_heats(
    pictures: Sequence[Picture],
    predictions: Sequence[Mapping[str, Any]],
    heats: NDArray[np.float32],
    layer: str,
    out: Path,
) -> Path:
    tiles = []
    for picture, said, heat in zip(pictures, predictions, heats, strict=True):
        tiles += [Tile(picture.row, *_told(said)), Tile(picture.row, "evidence for it", heat=heat)]
    picture_grids.draw(tiles, out / "grad_cam.png", title=f"Grad-CAM at {layer}")
    return out / "grad_cam.png"


def _draw_features(maps: Mapping[str, NDArray[np.float32]], out: Path) -> list[Path]:
    out.mkdir(exist_ok=True)
    files = []
    for name, values in maps.items():
        first = values[0]
        # Those that differ most over the picture say most about it.
        channels = np.sort(np.argsort(-first.var(axis=(0, 1)), kind="stable")[:SHOWN_CHANNELS])
        tiles = [Tile(first[..., channel], f"channel {channel}") for channel in channels.tolist()]
        file = out / f"{name.replace('/', '_')}.png"
        height, width, total = first.shape
        shown = f"{len(tiles)} of {total}" if len(tiles) < total else str(total)
        picture_grids.draw(tiles, file, title=f"{name}: {shown} maps of {height}x{width}", columns=8)
        files.append(file)
    return files


def _told(said: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a caption and its colour."""
    caption = f"{short(said['predicted'])} {said['probability']:.0%}"
    if said["truth"] is None:
        return f"{caption}\n{short(said['name'])}", NEUTRAL
    right = said["truth"] == said["predicted"]
    return (caption, RIGHT) if right else (f"{caption}\nis {short(said['truth'])}", WRONG)
