"""Decoded pictures are resized by Pillow's own filter, without the copies and the Python that Pillow has around it.

    uint8[h, w, 1 | 3 | 4] ──laid under an image as it is──▶ Pillow's resampling, in C ──▶ uint8[height, width, 1 | 3]
                        └─ 3 channels: to four bytes a pixel first, which is how Pillow keeps colours

A photograph of 500 × 375 from its JPEG file to 224 × 224: 1.67 ms with four bytes a pixel from the decoder on, 2.50 ms
by `Image.fromarray` and `Image.resize`. The pixels are the same, since the filter is. The functions are not among what
Pillow promises to keep: `tests/unit/server/test_resize.py` notices when they change. For `server.images` alone.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, _imaging

#: What a decoder gives for RGB that is to be resized: red, green, blue, and a byte that nobody reads.
PADDED: Final = 4
_RGB: Final = 3


def resized(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Stretches a picture to a size with an antialiased bilinear filter.

    Args:
        pixels: `uint8[h, w, c]`, contiguous: 1 channel for grey, 3 for RGB, `PADDED` for RGB with a byte more.
        width_px: Pixels in a row of the result.
        height_px: Rows of the result.

    Returns:
        `uint8[height_px, width_px, 1 or 3]`, in read-only memory.
    """
    height, width, channels = pixels.shape
    mode = "L" if channels == 1 else "RGB"
    source: Any = Image.fromarray(pixels).im if channels == _RGB else _mapped(pixels, mode)
    image = source.resize((width_px, height_px), Image.Resampling.BILINEAR, (0, 0, width, height))
    encoder = _imaging.raw_encoder(mode, mode)
    encoder.setimage(image, (0, 0, width_px, height_px))
    raw = encoder.encode(width_px * height_px * len(mode))[2]
    return np.frombuffer(raw, np.uint8).reshape(height_px, width_px, len(mode))


def _mapped(pixels: NDArray[np.uint8], mode: str) -> Any:
    """Pillow's image with these very bytes for its pixels."""
    height, width, _ = pixels.shape
    return _imaging.map_buffer(pixels, (width, height), "raw", 0, (mode, 0, 1))
