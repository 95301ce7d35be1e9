"""Encoded pictures become rows of pixels here, and nowhere else.

    bytes ──sniff format──▶ header: pixels ≤ limit? ──decode, turn upright──▶ RGB or grey ──resize──▶ uint8[h, w, c]

Training, export and serving all import this module, so what a model saw in training and what it sees in production
cannot drift apart. Pure: no state, no event loop, safe to call from any thread.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from server import jpeg, png
from server.errors import UnsupportedImage
from server.resize import resized

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS: Final = 64_000_000  # 8000 × 8000: larger than any camera's, small enough to decode in 200 MB
UNKNOWN_PIXELS: Final = 1 << 62
RESIZE: Final = "bilinear-antialias"  # the manifest's name for what `decode` does

_PNG_SIZE: Final = slice(16, 24)
_JPEG_START: Final = b"\xff\xd8"
_JPEG_MARKER: Final = 0xFF
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What a model's image input takes.

    Args:
        height_px: Rows of pixels.
        width_px: Pixels in a row.
        channels: 1 for greyscale, 3 for RGB.
    """

    height_px: int
    width_px: int
    channels: int

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"expected 1 (greyscale) or 3 (RGB) channels, received {self.channels}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """One row's shape, `(height, width, channels)`."""
        return self.height_px, self.width_px, self.channels


def decode(data: bytes | memoryview, spec: ImageSpec, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes one encoded picture and resizes it to what a model takes.

    The picture is turned upright by its EXIF orientation, an animation gives its first frame, transparency is laid on
    white, 16-bit samples keep their 8 highest bits, and the whole picture is stretched to the target with an
    antialiased bilinear filter. JPEG files much larger than the target are decoded at a reduced scale (`Image.draft`).

    Args:
        data: The file's bytes: JPEG, PNG, WebP, BMP, GIF or TIFF.
        spec: The target.
        max_pixels: Pictures with more pixels by their header are refused before any pixel is decoded.

    Returns:
        `uint8[height, width, channels]`.

    Raises:
        UnsupportedImage: The bytes are empty, no picture, damaged, or too many pixels.
    """
    plain = None
    if data[:2] == _JPEG_START:
        plain = jpeg.decode_plain(data, spec.shape, least_px=_least_px(spec), max_pixels=max_pixels)
    elif data[:8] == png.SIGNATURE:
        plain = png.decode_plain(data, spec.channels, max_pixels=max_pixels)
    if plain is not None:
        return plain if plain.shape == spec.shape else resized(plain, spec.width_px, spec.height_px)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_bomb(image, max_pixels)
            return _to_rows(image, spec)
    except UnidentifiedImageError:
        raise UnsupportedImage(_unknown(data)) from None
    except Image.DecompressionBombError as error:  # beyond Pillow's own limit it refuses to look any further
        raise UnsupportedImage(
            f"expected a picture of at most {max_pixels:,} pixels, received one that is a decompression bomb: {error}"
        ) from None
    except (UnsupportedImage, MemoryError):
        raise
    except Exception as error:  # Pillow lets many kinds out of damaged files, an IFDRational's TypeError for one
        raise UnsupportedImage(f"the picture cannot be decoded: {error}; send an undamaged file") from error


def load_formats() -> None:
    """Has Pillow load its decoders now; otherwise the first file that is no picture does, and takes 80 ms for it.

    Also silences its remarks about damaged files: `decode` raises where it matters.
    """
    Image.init()
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def header_pixels(data: bytes | memoryview) -> int:
    """How many pixels an encoded picture has by its header, at a tenth of the cost of opening it.

    Args:
        data: The file's bytes.

    Returns:
        Width × height of a JPEG or PNG file; `UNKNOWN_PIXELS` for anything else, broken files included. A hint for
        where to decode, never a check.
    """
    if data[:8] == png.SIGNATURE and len(data) >= _PNG_SIZE.stop:
        width, height = struct.unpack(">II", data[_PNG_SIZE])
        return int(width * height)
    return _jpeg_pixels(data) if data[:2] == _JPEG_START else UNKNOWN_PIXELS


def _jpeg_pixels(data: bytes | memoryview) -> int:
    # Segments follow one another as 0xFF, marker, length (2 bytes, itself included); a frame header holds the size.
    position = 2
    while position + 9 <= len(data) and data[position] == _JPEG_MARKER:
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return int(width * height)
        position += 2 + length
    return UNKNOWN_PIXELS


def _refuse_bomb(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnsupportedImage(
            f"expected a picture of at most {max_pixels:,} pixels, received {width} × {height} = {width * height:,};"
            " send a smaller one"
        )


def _to_rows(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    image.draft(None, (_least_px(spec),) * 2)
    upright = ImageOps.exif_transpose(image)
    pixels = _to_mode(upright, "L" if spec.channels == 1 else "RGB")
    target = (spec.width_px, spec.height_px)
    if pixels.size != target:
        pixels = pixels.resize(target, Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8).reshape(spec.shape)


def _least_px(spec: ImageSpec) -> int:
    """How long each side of a JPEG stays at least when it is decoded at a reduced scale.

    Twice the target, so the antialiased resize still averages over real pixels. 1000 × 750 → 224: 6.5 ms at full scale,
    3.5 ms at half.
    """
    return 2 * max(spec.width_px, spec.height_px)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert(mode)


def _to_8_bits(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)
    if samples.dtype.kind == "f":
        return Image.fromarray(np.clip(np.nan_to_num(samples), 0, 255).astype(np.uint8))
    return Image.fromarray((np.clip(samples, 0, 65_535).astype(np.uint32) >> 8).astype(np.uint8))


def _unknown(data: bytes | memoryview) -> str:
    if not data:
        return "expected an image file, received no bytes"
    head = bytes(data[:12])
    return (
        f"expected a JPEG, PNG, WebP, BMP, GIF or TIFF file, received {len(data):,} bytes that begin with {head!r};"
        " check that the file is a picture and was sent unchanged"
    )
