"""MNIST's IDX files, plain or gzipped: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and `t10k-…` for the test.

    0 0 8 dimensions │ each dimension as a big-endian uint32 │ the bytes

The 8 says that they are unsigned bytes. Fashion-MNIST, KMNIST and many others come under the same names.
"""

import gzip
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.data import arrays
from training.data.arrays import Labelled
from training.data.catalogue import Catalogue
from training.errors import TrainingError

_PARTS: Final = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = ("images", 3), ("labels", 1)
_UNSIGNED_BYTES: Final = 8
_GZIPPED: Final = b"\x1f\x8b"


def _spellings(part: str, kind: tuple[str, int]) -> tuple[str, ...]:
    """The names under which one file is published: `-idx3-` or `.idx3-`, with and without `.gz`."""
    word, dimensions = kind
    return tuple(f"{part}-{word}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz"))


KNOWN: Final = frozenset(
    name for part in _PARTS.values() for kind in (_IMAGES, _LABELS) for name in _spellings(part, kind)
)


def catalogue(path: Path, source: str, files: Mapping[str, bytes]) -> Catalogue:
    """Makes a catalogue of IDX files.

    Args:
        path: Where they come from, for messages.
        source: What the data are called.
        files: Name → contents.

    Raises:
        TrainingError: A file is missing, damaged, or does not belong to its partner.
    """
    splits = {
        split: Labelled(_array(path, files, part, _IMAGES), _array(path, files, part, _LABELS))
        for split, part in _PARTS.items()
    }
    return arrays.catalogue(source, "IDX", splits)


def _array(path: Path, files: Mapping[str, bytes], part: str, kind: tuple[str, int]) -> NDArray[Any]:
    spellings = _spellings(part, kind)
    name = next((name for name in spellings if name in files), None)
    if name is None:
        raise TrainingError(f"expected {spellings[0]} (or {spellings[1]}) in {path}, received none; add the file")
    return read(files[name], f"{path}/{name}", kind[1])


def read(data: bytes, place: str, dimensions: int) -> NDArray[np.uint8]:
    """Reads one IDX file of unsigned bytes.

    Args:
        data: The file, gzipped or not.
        place: What to call it in messages.
        dimensions: How many the array must have.

    Returns:
        `uint8[n, height, width]`, or `uint8[n]`.

    Raises:
        TrainingError: The header is another, or the size is not what it says.
    """
    content = _unzipped(data, place)
    begin = 4 * (1 + dimensions)
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTES, dimensions)) or len(content) < begin:
        raise TrainingError(
            f"expected an IDX file of unsigned bytes in {dimensions} dimensions (it begins with 0 0 8 {dimensions})"
            f" in {place}, received {' '.join(map(str, content[:4])) or 'nothing'}; download the file again"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:begin])
    size = int(np.prod(shape, dtype=object))
    if len(content) - begin != size:
        raise TrainingError(
            f"expected {size:,} bytes for {'x'.join(map(str, shape))} as the header of {place} says, received"
            f" {len(content) - begin:,}; download the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape)


def _unzipped(data: bytes, place: str) -> bytes:
    try:
        return gzip.decompress(data) if data[:2] == _GZIPPED else data
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"cannot unzip {place} ({error}); download the file again") from error
