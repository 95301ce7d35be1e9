"""A run folder, training's output, read and checked before anything is computed from it.

runs/<name>/<number>/
    run.json          written last: a folder without it is unfinished and is not seen
    model.keras       pixels 0..255 in, probabilities out
    metrics.json      what Keras measured on the test split
    calibration.npz   rows, labels: of the training split, for int8
    holdout.npz       rows, labels: of the test split, for verification
    samples.npz       a few original files, for the golden set (may be missing)
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from server.images import RESIZE, ImageSpec

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Pictures as the model takes them, with their classes.

    Args:
        pixels: `uint8[n, h, w, c]`.
        labels: `int64[n]`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Samples:
    """Original encoded files of the test split.

    Args:
        files: The bytes of each.
        labels: `int64[n]`.
    """

    files: tuple[bytes, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """One finished training run.

    Args:
        folder: `runs/<name>/<number>`.
        number: The folder's number.
        facts: `run.json` as written.
        metrics: `metrics.json` as written, empty when there is none.
        image: What the model takes.
        labels: `labels[i]` names class i.
    """

    folder: Path
    number: int
    facts: dict[str, Any]
    metrics: dict[str, Any]
    image: ImageSpec
    labels: tuple[str, ...]

    @property
    def model_path(self) -> Path:
        """The Keras model's file."""
        return self.folder / "model.keras"

    def rows(self, name: str) -> Rows:
        """Reads `calibration` or `holdout`.

        Args:
            name: The file's name without `.npz`.

        Raises:
            ExportError: The file is missing, damaged, empty, or its rows are not what the model takes.
        """
        path = self.folder / f"{name}.npz"
        arrays = _read_npz(path, ("rows", "labels"))
        _check_rows(path, arrays["rows"], arrays["labels"], self.image, len(self.labels))
        return Rows(arrays["rows"], arrays["labels"].astype(np.int64))

    def samples(self) -> Samples:
        """Reads the original files that were kept, none when `samples.npz` is missing.

        Raises:
            ExportError: The file is damaged or its offsets do not fit.
        """
        path = self.folder / "samples.npz"
        if not path.exists():
            return Samples((), np.empty(0, np.int64))
        arrays = _read_npz(path, ("encoded", "offsets", "labels"))
        offsets, data = arrays["offsets"].astype(np.int64), arrays["encoded"].tobytes()
        if len(offsets) != len(arrays["labels"]) + 1 or np.any(np.diff(offsets) < 0) or offsets[-1] != len(data):
            raise ExportError(f"{path}: offsets do not fit the {len(data):,} bytes kept; train again")
        files = tuple(data[start:end] for start, end in pairwise(offsets))
        return Samples(files, arrays["labels"].astype(np.int64))


def find_run(runs: Path, name: str, number: str = "latest") -> Run:
    """Finds and reads a finished run.

    Args:
        runs: Folder of run folders.
        name: The model's name.
        number: A run's number, or `latest`.

    Raises:
        ExportError: There is no such finished run, or its `run.json` is not one.
    """
    finished = sorted(int(path.parent.name) for path in (runs / name).glob("*/run.json") if path.parent.name.isdigit())
    if not finished:
        raise ExportError(f"expected a finished run in {runs / name}, found none; train one: make train NAME={name}")
    if number == "latest":
        return _read_run(runs / name / str(finished[-1]))
    if not number.isdigit() or int(number) not in finished:
        known = ", ".join(map(str, finished[-10:]))
        raise ExportError(f"expected --run latest or one of {known} in {runs / name}, received {number!r}")
    return _read_run(runs / name / str(int(number)))


def _read_run(folder: Path) -> Run:
    facts = _read_json(folder / "run.json")
    if facts.get("schema") != SCHEMA:
        raise ExportError(f"{folder / 'run.json'}: expected schema {SCHEMA}, received {facts.get('schema')!r}")
    if not (folder / "model.keras").is_file():
        raise ExportError(f"expected a Keras model at {folder / 'model.keras'}, found none; train again")
    metrics = _read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    try:
        image = ImageSpec(**{key: int(facts["image"][key]) for key in ("height_px", "width_px", "channels")})
        labels = tuple(str(label) for label in facts["labels"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{folder / 'run.json'}: expected image and labels as training writes them: {error}"
        ) from error
    _check_facts(folder / "run.json", facts, labels)
    return Run(folder, int(folder.name), facts, metrics, image, labels)


def _check_facts(path: Path, facts: dict[str, Any], labels: tuple[str, ...]) -> None:
    if not labels or len(set(labels)) != len(labels):
        raise ExportError(f"{path}: expected a list of distinct labels, received {list(labels)}")
    resize = facts.get("preprocessing", {}).get("resize", RESIZE)
    if resize != RESIZE:
        raise ExportError(f"{path}: expected resize {RESIZE!r}, the one that the server does, received {resize!r}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ExportError(f"{path} is no JSON: {error}; train again") from error
    if not isinstance(value, dict):
        raise ExportError(f"{path}: expected a JSON object, received {type(value).__name__}")
    return value


def _read_npz(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys}
    except FileNotFoundError:
        raise ExportError(f"expected {path}, found none; train again") from None
    except KeyError as error:
        raise ExportError(f"{path}: expected arrays {', '.join(keys)}: {error}; train again") from error
    except (ValueError, EOFError, BadZipFile, OSError) as error:
        raise ExportError(f"{path} cannot be read: {error}; train again") from error


def _check_rows(path: Path, pixels: NDArray[Any], labels: NDArray[Any], image: ImageSpec, classes: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != image.shape:  # noqa: PLR2004 - n, h, w, c
        raise ExportError(
            f"{path}: expected rows uint8[n, {', '.join(map(str, image.shape))}] as the model takes,"
            f" received {pixels.dtype}{list(pixels.shape)}; train again"
        )
    if not len(pixels) or labels.shape != (len(pixels),):
        raise ExportError(f"{path}: expected one label for each row and at least one row, received"
                          f" {len(pixels)} rows and labels of shape {list(labels.shape)}")  # fmt: skip
    if labels.min() < 0 or labels.max() >= classes:
        raise ExportError(f"{path}: expected labels 0..{classes - 1}, received {labels.min()}..{labels.max()}")
