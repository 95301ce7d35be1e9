"""What a server compares live traffic with: how the hold-out rows look, and how they were answered.

hold-out rows ──brightness, contrast──▶ tenths of the rows ─┐
Keras's answers ──class, confidence──▶ counts ──────────────┴─▶ bundle_pb2.Reference
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from protos import bundle_pb2
from server.looks import looks_of

# Denser where most answers are. Not tenths of the rows: a quantized variant moves a confidence of 0.9999 a bit, which
# must not look like drift.
CONFIDENCE_EDGES: Final = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_TENTHS: Final = np.arange(0.1, 1.0, 0.1)
# Rows looked at in one go: their counts of pixel values take 2 KiB each.
_CHUNK_ROWS: Final = 4096


def build_reference(pixels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> bundle_pb2.Reference:
    """Counts the hold-out rows by what live rows will be counted by.

    Args:
        pixels: `uint8[n, height, width, channels]`, the hold-out rows.
        probabilities: `float32[n, classes]`, Keras's answers to them.
    """
    chunks = [looks_of(pixels[start : start + _CHUNK_ROWS]) for start in range(0, len(pixels), _CHUNK_ROWS)]
    brightness, contrast = (np.concatenate(values) for values in zip(*chunks, strict=True))
    classes = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return bundle_pb2.Reference(
        rows=len(pixels),
        classes=classes.tolist(),
        confidence=_histogram(probabilities.max(axis=1).astype(np.float64), np.array(CONFIDENCE_EDGES)),
        brightness=_histogram(brightness, np.quantile(brightness, _TENTHS)),
        contrast=_histogram(contrast, np.quantile(contrast, _TENTHS)),
    )


def _histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> bundle_pb2.Histogram:
    edges = np.unique(edges.round(6))
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return bundle_pb2.Histogram(edges=edges.tolist(), counts=counts.tolist())
