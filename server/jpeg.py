"""Plain JPEG files: decoded by the libjpeg-turbo that Pillow uses, without the Python that Pillow wraps around it.

    bytes ──▶ plain? ──▶ libjpeg-turbo, at a reduced scale where the target is far smaller ──▶ uint8[h, w, c]
                │                         not of the target's size: as `server.resize` takes it ─┘
                └─▶ None: Pillow's to decode, to turn upright or to refuse

A 32 × 32 file takes 11 µs this way and 98 µs by Pillow, a 500 × 375 photograph 0.82 ms and 0.90 ms. The pixels are the
same to the last bit: both libraries call the same decoder with the same settings, and the tests hold them to it. For
`server.images` alone.
"""

from typing import Any, Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from server.resize import PADDED

_MARKER: Final = 0xFF
_SCAN: Final = 0xDA  # the pixels begin
_METADATA: Final = 0xE1  # EXIF or XMP: the picture may have to be turned
_LENGTH_AT: Final = 2  # within a segment, behind its marker
_SCALES: Final = (8, 4, 2, 1)  # what Pillow's `draft` chooses from
# A file's colours, channels wanted, whether it will be resized ─▶ what the library is asked for, channels it gives
_FORMS: Final = {
    ("YCbCr", 3, False): ("RGB", 3),
    ("YCbCr", 3, True): ("RGBX", PADDED),
    ("Gray", 1, False): ("GRAY", 1),
    ("Gray", 1, True): ("GRAY", 1),
}


def decode_plain(
    data: bytes | memoryview, shape: tuple[int, int, int], *, least_px: int, max_pixels: int
) -> NDArray[np.uint8] | None:
    """Decodes a JPEG file that needs nothing but decoding.

    Args:
        data: The file's bytes.
        shape: What it is for, `(height, width, channels)`: 3 for RGB, 1 for grey; a file of the other kind is not for
            here.
        least_px: The scale is reduced to 1/2, 1/4 or 1/8 while both sides stay at least this long, as
            `PIL.Image.Image.draft` does.
        max_pixels: Files with more pixels are not for here.

    Returns:
        `uint8[height, width, channels]`, RGB of another size than the target's with `PADDED` channels; None where
        Pillow has to look at the file: metadata that may turn it, other colours, too many pixels, or any damage.
    """
    if not _is_plain(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > max_pixels:
            return None
        scale = min(width // least_px, height // least_px)
        divisor = next((known for known in _SCALES if known <= scale), 1)
        height, width = -(-height // divisor), -(-width // divisor)
        form = _FORMS.get((colours, shape[2], (height, width) != shape[:2]))
        if form is None:
            return None
        wanted, channels = form
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(data, wanted, min_height=height, min_width=width)
    except ValueError:  # damaged, to whatever degree
        return None
    return pixels if pixels.shape == (height, width, channels) else None


def _is_plain(data: bytes | memoryview) -> bool:
    """Whether every segment up to the pixels can be found, and none of them holds metadata."""
    at, end = 2, len(data) - 4
    while at <= end and data[at] == _MARKER:
        marker = data[at + 1]
        if marker == _SCAN:
            return True
        if marker == _METADATA:
            return False
        at += _LENGTH_AT + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
