"""How bright rows of pixels are, and how much contrast they have: one formula for the reference and live traffic."""

import numpy as np
from numpy.typing import NDArray


def looks_of(rows: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brightness and contrast of each row, over all its pixels and channels.

    Contrast is root-mean-square contrast, the standard deviation of the pixels (Peli, Contrast in complex images,
    J. Opt. Soc. Am. A 7, 1990), here in pixel values.

    Args:
        rows: `uint8[n, height, width, channels]`.

    Returns:
        Means 0..255 and standard deviations 0..127.5, `float64[n]` each.
    """
    flat = rows.reshape(len(rows), -1)
    # Sums of integers: exact, whatever the order, and half the time of counting the 256 values. Row by row, so that
    # the squares of one fit in a core's cache.
    sums = np.array([(row.sum(dtype=np.uint64), _squares(row).sum(dtype=np.uint64)) for row in flat], np.float64)
    means, squares = sums.reshape(-1, 2).T / flat.shape[1]
    return means, np.sqrt(np.maximum(squares - means**2, 0.0))


def _squares(row: NDArray[np.uint8]) -> NDArray[np.uint16]:
    squares: NDArray[np.uint16] = np.square(row, dtype=np.uint16)
    return squares
