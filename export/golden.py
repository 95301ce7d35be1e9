"""The golden set: encoded pictures with Keras's own probabilities, replayed by export and by servers that load it.

    samples.npz: original files ──┐
                                  ├──server.images.decode──▶ rows ──Keras──▶ golden.npz
    holdout.npz: rows ──PNG───────┘

The files go through the same `decode` as a request does, so a server whose decoder, layout or scaling differs from
training's notices before it answers anyone.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import ExportError
from export.run_folder import Rows, Samples
from server.errors import UnsupportedImage
from server.images import ImageSpec, decode


@dataclass(frozen=True, slots=True)
class Golden:
    """Encoded pictures and what they decode to.

    Args:
        files: The bytes of each.
        labels: `int64[n]`.
        pixels: `uint8[n, h, w, c]`, by `server.images.decode`.
    """

    files: tuple[bytes, ...]
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    def arrays(self, probabilities: NDArray[np.float32], classes: Sequence[str] = ()) -> dict[str, NDArray[np.generic]]:
        """What `golden.npz` holds.

        Args:
            probabilities: `float32[n, classes]`, Keras's own for `pixels`.
            classes: The labels' names; a server compares them with the manifest's.
        """
        ends = np.cumsum([0, *map(len, self.files)], dtype=np.int64)
        return {
            "encoded": np.frombuffer(b"".join(self.files), np.uint8),
            "offsets": ends,
            "labels": self.labels,
            "probabilities": probabilities.astype(np.float32),
            **({"classes": np.array(classes, np.str_)} if classes else {}),
        }


def make_golden(samples: Samples, holdout: Rows, spec: ImageSpec, at_least: int) -> Golden:
    """Takes the original files, and hold-out rows as PNG while those are few.

    Args:
        samples: Original files, perhaps none.
        holdout: Rows to fill up with, spread evenly over the split.
        spec: What the model takes.
        at_least: Wanted number of images.

    Raises:
        ExportError: A sample cannot be decoded.
    """
    missing = min(max(0, at_least - len(samples.files)), len(holdout))
    picked = np.linspace(0, len(holdout) - 1, missing).astype(int)
    files = (*samples.files, *(to_png(holdout.pixels[index]) for index in picked))
    labels = np.concatenate([samples.labels, holdout.labels[picked]]).astype(np.int64)
    try:
        pixels = np.stack([decode(data, spec) for data in files])
    except UnsupportedImage as error:
        raise ExportError(f"samples.npz holds a file that the server would refuse: {error}") from error
    return Golden(files, labels, pixels)


def to_png(row: NDArray[np.uint8]) -> bytes:
    """Encodes one row without loss.

    Args:
        row: `uint8[h, w, c]`, c 1 or 3.
    """
    buffer = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(buffer, format="PNG")
    return buffer.getvalue()
