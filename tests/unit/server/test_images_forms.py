"""Forms of pictures that cameras, scanners and drawing programs write, and claims of size in each format's header."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnsupportedImage
from server.images import ImageSpec, decode

RGB = ImageSpec(8, 8, 3)
GREY = ImageSpec(8, 8, 1)
ORIENTATION = 0x0112
CLAIM = 9000
TIFF_WIDTH, TIFF_HEIGHT = 256, 257


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def corners() -> NDArray[np.uint8]:
    """Red, green / blue, white: every way of turning it shows."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4, 0] = pixels[:4, 4:, 1] = pixels[4:, :4, 2] = 255
    pixels[4:, 4:] = 255
    return pixels


# ---- orientation, in every format that has EXIF or a tag of its own ----


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (3, lambda pixels: pixels[::-1, ::-1]),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (8, np.rot90),
    ],
)
def test_a_turned_camera(form: str, orientation: int, turned: Callable[[Any], Any]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exact: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = encode(Image.fromarray(corners()), form, exif=exif, **exact.get(form, {}))
    difference = decode(data, RGB).astype(int) - turned(corners())
    assert np.abs(difference).max() <= (16 if form == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(decode(encode(Image.fromarray(corners()), "PNG", exif=exif), RGB), corners())


# ---- samples of 16 bits, written by hand: Pillow writes grey ones only ----


def png_16(samples: NDArray[np.uint16], colour_type: int) -> bytes:
    """A PNG file of `uint16[height, width, channels]`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_keep_the_8_highest() -> None:
    samples = np.zeros((8, 8, 3), np.uint16)
    samples[..., 0], samples[..., 1], samples[..., 2] = 0xFFFF, 0x80FF, 0x0040
    assert (decode(png_16(samples, 2), RGB) == [0xFF, 0x80, 0x00]).all()


@pytest.mark.parametrize(("colour_type", "channels"), [(4, 2), (6, 4)])
def test_transparency_of_16_bits_is_laid_on_white(colour_type: int, channels: int) -> None:
    samples = np.zeros((8, 8, channels), np.uint16)
    samples[4:, :, -1] = 0xFFFF
    for spec in (RGB, GREY):
        pixels = decode(png_16(samples, colour_type), spec)
        assert (pixels[:4] == 255).all()
        assert (pixels[4:] == 0).all()


# ---- palettes ----


def test_a_palette_of_many_transparencies() -> None:
    image = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8), 16).reshape(8, 8), "P")
    image.putpalette([0, 0, 0] * 4)
    pixels = decode(encode(image, "PNG", transparency=bytes([0, 85, 170, 255])), GREY)[..., 0]
    assert np.abs(pixels[::2, 0].astype(int) - [255, 170, 85, 0]).max() <= 1


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "TIFF"])
def test_a_palette_of_any_size(form: str, colours: int) -> None:
    levels = (np.arange(64) % colours * 255 // (colours - 1)).astype(np.uint8).reshape(8, 8)
    image = Image.fromarray(levels).convert("P")
    assert np.array_equal(decode(encode(image, form), GREY)[..., 0], levels)


def test_a_gif_whose_first_frame_is_partly_nothing_has_white_there() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 8, 4))
    pixels = decode(encode(image, "GIF", transparency=0), RGB)
    assert (pixels[:4] == 255).all()
    assert (pixels[4:] == [255, 0, 0]).all()


# ---- ink ----


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_black_ink_is_black_and_none_is_white(form: str) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:, :4, 3] = 255
    pixels = decode(encode(Image.fromarray(inks, "CMYK"), form), GREY)[..., 0]
    assert (pixels[:, :3] < 16).all()
    assert (pixels[:, 5:] > 240).all()


# ---- bombs: what a header claims is enough ----


def claims_bmp(data: bytearray) -> None:
    struct.pack_into("<ii", data, 18, CLAIM, CLAIM)


def claims_gif(data: bytearray) -> None:
    struct.pack_into("<HH", data, 6, CLAIM, CLAIM)


def claims_jpeg(data: bytearray) -> None:
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, CLAIM, CLAIM)


def claims_png(data: bytearray) -> None:
    struct.pack_into(">II", data, 16, CLAIM, CLAIM)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))


def claims_tiff(data: bytearray) -> None:
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] in (TIFF_WIDTH, TIFF_HEIGHT):
            struct.pack_into("<H", data, entry + 8, CLAIM)


def claims_webp(data: bytearray) -> None:
    place = data.index(b"VP8L") + 9  # behind the chunk's name and length, and a byte that says what it is
    (bits,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, bits & ~0xFFFFFFF | CLAIM - 1 | (CLAIM - 1) << 14)


CLAIMS = {
    "BMP": claims_bmp,
    "GIF": claims_gif,
    "JPEG": claims_jpeg,
    "PNG": claims_png,
    "TIFF": claims_tiff,
    "WEBP": claims_webp,
}


@pytest.mark.parametrize("form", CLAIMS)
def test_a_claim_of_too_many_pixels_is_refused_in_every_format(form: str) -> None:
    data = bytearray(encode(Image.new("RGB", (8, 8)), form, **({"lossless": True} if form == "WEBP" else {})))
    CLAIMS[form](data)
    with pytest.raises(UnsupportedImage, match="at most 1,000,000 pixels, received 9000 × 9000 = 81,000,000"):
        decode(bytes(data), RGB, max_pixels=1_000_000)


def test_a_claim_beyond_pillows_own_limit_is_told_in_the_same_words() -> None:
    data = bytearray(encode(Image.new("L", (8, 8)), "BMP"))
    struct.pack_into("<ii", data, 18, 30_000, 30_000)
    with pytest.raises(UnsupportedImage, match="at most 64,000,000 pixels, received one that is a decompression bomb"):
        decode(bytes(data), RGB)
