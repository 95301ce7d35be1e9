"""The embedded default: scikit-learn's digits, 1,797 scans of handwritten digits, 8 × 8 pixels, no download."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from training.data.catalogue import Catalogue, Item
from training.data.splits import parted
from training.settings import EMBEDDED

TEST_FRACTION: Final = 0.2
TEST_SEED: Final = 0  # fixed: whatever `--seed` is, the same scans are held out, so runs can be compared
_WHITEST: Final = 16  # the scans count set pixels of 4 × 4 blocks


def catalogue() -> Catalogue:
    """Renders the scans as PNG files in memory, a fifth of them (stratified) held out for the test."""
    scans = load_digits()
    labels = scans.target.astype(np.int64)
    test, _ = parted(labels, TEST_FRACTION, TEST_SEED)
    held_out = set(test.tolist())
    items = tuple(
        Item("test" if index in held_out else "train", int(label), f"{index:04}.png", _png(scan))
        for index, (scan, label) in enumerate(zip(scans.images, labels, strict=True))
    )
    return Catalogue(EMBEDDED, tuple(str(digit) for digit in range(10)), items)


def _png(scan: NDArray[np.float64]) -> bytes:
    pixels = np.rint(scan * (255 / _WHITEST)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return encoded.getvalue()
