"""CIFAR-10 and CIFAR-100 as their authors publish them: a binary and a Python form, a folder or an archive.

    binary    CIFAR-10: label, 3,072 pixels · CIFAR-100: coarse label, fine label, 3,072 pixels · one after another
    Python    a pickled dict: `data` uint8[n, 3072], `labels` or `fine_labels` (`training.data.pickles` reads it)

Either way a picture is three planes of 32 × 32: red, green, blue. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data import arrays, pickles
from training.data.arrays import Labelled
from training.data.catalogue import Catalogue
from training.data.class_names import CIFAR_10, CIFAR_100
from training.errors import TrainingError

_SIDE_PX: Final = 32
_PIXELS: Final = 3 * _SIDE_PX * _SIDE_PX
_BATCHES: Final = tuple(f"data_batch_{number}" for number in range(1, 6))


@dataclass(frozen=True, slots=True)
class Form:
    """One published form.

    Args:
        title: What a record calls it.
        splits: Split → the files that make it up, in order.
        names_in: The file that names the classes.
        names_key: Under which key, in the Python forms.
        published: The classes' names where that file is missing.
        label_bytes: Bytes before the pixels, in the binary forms; the last one is the label that is learnt.
    """

    title: str
    splits: Mapping[str, tuple[str, ...]]
    names_in: str
    names_key: str
    published: tuple[str, ...]
    label_bytes: int = 0

    @property
    def needed(self) -> frozenset[str]:
        """The files without which there are no data."""
        return frozenset(name for names in self.splits.values() for name in names)


FORMS: Final = (
    Form(
        "CIFAR-10, binary", {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        "batches.meta.txt", "", CIFAR_10, label_bytes=1,
    ),
    Form("CIFAR-10, Python", {"train": _BATCHES, "test": ("test_batch",)}, "batches.meta", "label_names", CIFAR_10),
    Form(
        "CIFAR-100, binary", {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt", "", CIFAR_100, label_bytes=2,
    ),
    Form("CIFAR-100, Python", {"train": ("train",), "test": ("test",)}, "meta", "fine_label_names", CIFAR_100),
)  # fmt: skip
NEEDED: Final = frozenset[str]().union(*(form.needed for form in FORMS))
KNOWN: Final = NEEDED | {form.names_in for form in FORMS}


def catalogue(path: Path, source: str, files: Mapping[str, bytes]) -> Catalogue:
    """Makes a catalogue of CIFAR's files.

    Args:
        path: Where they come from, for messages.
        source: What the data are called.
        files: Name → contents.

    Raises:
        TrainingError: A file is missing, damaged, or holds labels that have no name.
    """
    form = max(FORMS, key=lambda form: len(form.needed & files.keys()))
    missing = sorted(form.needed - files.keys())
    if missing:
        raise TrainingError(
            f"expected {form.title} with {', '.join(sorted(form.needed))} in {path}, received no"
            f" {', '.join(missing)}; add the missing files"
        )
    splits = {
        split: _joined([_labelled(form, files[name], f"{path}/{name}") for name in names])
        for split, names in form.splits.items()
    }
    return arrays.catalogue(source, form.title, splits, _names(form, files, f"{path}/{form.names_in}"))


def _labelled(form: Form, data: bytes, place: str) -> Labelled:
    return _from_binary(form, data, place) if form.label_bytes else _from_python(data, place)


def _from_binary(form: Form, data: bytes, place: str) -> Labelled:
    record = form.label_bytes + _PIXELS
    if not data or len(data) % record:
        raise TrainingError(
            f"expected records of {record:,} bytes ({form.title}) in {place}, received {len(data):,} bytes;"
            " download the file again"
        )
    table = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    return Labelled(_upright(table[:, form.label_bytes :]), table[:, form.label_bytes - 1].astype(np.int64))


def _from_python(data: bytes, place: str) -> Labelled:
    content = pickles.read(data, place)
    labels = content.get("fine_labels", content.get("labels"))
    pixels = content.get("data")
    are_labels = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not (
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (_PIXELS,) and are_labels
    ):
        raise TrainingError(
            f"expected 'data' as uint8[n, {_PIXELS}] and 'labels' or 'fine_labels' as a list of whole numbers in"
            f" {place}, received {', '.join(sorted(content)) or 'nothing'}; download the data again"
        )
    return Labelled(_upright(pixels), np.array(labels, dtype=np.int64))


def _upright(table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turns `uint8[n, 3072]` of planes into `uint8[n, 32, 32, 3]`."""
    return np.ascontiguousarray(table.reshape(-1, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1))


def _joined(parts: list[Labelled]) -> Labelled:
    return Labelled(np.concatenate([part.rows for part in parts]), np.concatenate([part.labels for part in parts]))


def _names(form: Form, files: Mapping[str, bytes], place: str) -> tuple[str, ...]:
    if form.names_in not in files:
        return form.published
    data = files[form.names_in]
    if not form.names_key:
        return tuple(line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip())
    names = pickles.read(data, place).get(form.names_key)
    if not isinstance(names, list):
        raise TrainingError(
            f"expected the class names as a list '{form.names_key}' in {place}, received"
            f" {type(names).__name__}; download the file again, or remove it to use the published names"
        )
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
