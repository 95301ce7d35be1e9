"""The short way of PNG files gives what Pillow gives, and leaves to Pillow whatever is not plain."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from server.errors import UnsupportedImage
from server.images import ImageSpec, decode
from server.png import SIGNATURE, decode_plain

MAX_PIXELS = 1_000_000
HEAD_BYTES = 33


def picture(height: int, width: int, mode: str, seed: int = 0) -> Image.Image:
    """Steps, slopes and noise, so that every filter is the best one for some row."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    random = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None]
    noise = random.integers(0, 1 + random.integers(0, 256), (height, width, channels))
    step = random.integers(0, 256, (height, 1, channels))
    pixels = np.where(random.random((height, 1, 1)) < 0.5, slope + noise, step).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def by_pillow(data: bytes, mode: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def split(data: bytes, parts: int) -> bytes:
    """The same file with its pixels in several chunks, as encoders with a small buffer write them."""
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at])
    packed = data[at + 4 : at + 4 + length]
    size = -(-length // parts)
    chunks = [chunk(b"IDAT", packed[start : start + size]) for start in range(0, length, size)]
    return data[: at - 4] + b"".join(chunks) + data[at + 4 + length + 4 :]


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    mode=st.sampled_from(["L", "RGB"]),
    level=st.integers(0, 9),
    parts=st.integers(1, 5),
    seed=st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_every_plain_file_gives_the_pixels_that_pillow_gives(
    height: int, width: int, mode: str, level: int, parts: int, seed: int
) -> None:
    data = split(png(picture(height, width, mode, seed), compress_level=level), parts)
    pixels = decode_plain(data, 1 if mode == "L" else 3, max_pixels=MAX_PIXELS)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data, mode))


@given(data=st.data(), mode=st.sampled_from(["L", "RGB"]))
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_gives_what_pillow_gives_or_is_left_to_it(data: st.DataObject, mode: str) -> None:
    whole = bytearray(png(picture(9, 7, mode)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    pixels = decode_plain(damaged, 1 if mode == "L" else 3, max_pixels=MAX_PIXELS)
    if pixels is not None:
        assert np.array_equal(pixels, by_pillow(damaged, mode))


@pytest.mark.parametrize("kind", ["sRGB", "gAMA", "pHYs", "tIME", "cHRM"])
def test_chunks_that_change_no_pixel_are_passed_over(kind: str) -> None:
    data = png(picture(5, 6, "RGB"))
    content = bytes({"sRGB": 1, "gAMA": 4, "pHYs": 9, "tIME": 7, "cHRM": 32}[kind])
    with_chunk = data[:HEAD_BYTES] + chunk(kind.encode(), content) + data[HEAD_BYTES:]
    pixels = decode_plain(with_chunk, 3, max_pixels=MAX_PIXELS)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(with_chunk, "RGB"))


EXIF = Image.Exif()
EXIF[0x0112] = 6  # lies on its side
PLAIN = png(picture(20, 30, "RGB"))
TEXT = PngImagePlugin.PngInfo()
TEXT.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>')


def interlaced() -> bytes:
    """The file with the flag for Adam7 set: Pillow writes none of that kind."""
    head = PLAIN[12 : HEAD_BYTES - 5] + b"\x01"
    return PLAIN[:12] + head + struct.pack(">I", zlib.crc32(head)) + PLAIN[HEAD_BYTES:]


def chunked(content: bytes) -> bytes:
    return PLAIN[:HEAD_BYTES] + content + PLAIN[HEAD_BYTES:]


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (png(picture(20, 30, "RGB"), exif=EXIF), 3),
        (png(picture(20, 30, "RGB"), pnginfo=TEXT), 3),
        (png(picture(20, 30, "RGB"), transparency=(1, 2, 3)), 3),
        (png(picture(20, 30, "RGBA")), 3),
        (png(picture(20, 30, "RGB").quantize(8)), 3),
        (png(Image.new("1", (30, 20))), 1),
        (png(Image.new("I;16", (30, 20))), 1),
        (png(picture(20, 30, "L")), 3),
        (PLAIN, 1),
        (interlaced(), 3),
        (png(picture(2000, 600, "L")), 1),
        (png(picture(5, 5, "RGB"), save_all=True, append_images=[picture(5, 5, "RGB", 1)]), 3),
        (chunked(chunk(b"gAMA", b"\x00")), 3),
        (chunked(chunk(b"gAMA", bytes(4))[:-1] + b"\x99"), 3),
        (PLAIN[:29] + b"\x99" + PLAIN[30:], 3),
        (PLAIN[:-12] + chunk(b"tEXt", b"a\x00b") + PLAIN[-12:], 3),
        (PLAIN[:-12], 3),
        (PLAIN[:-40], 3),
        (PLAIN[:100], 3),
        (PLAIN[:33], 3),
        (SIGNATURE, 3),
    ],
    ids=[
        *(
            "exif",
            "xmp",
            "a transparent colour",
            "alpha",
            "palette",
            "1 bit",
            "16 bits",
            "grey for rgb",
            "rgb for grey",
        ),
        *("interlaced", "too many pixels", "animation", "a short gamma", "a gamma with a wrong sum"),
        *(
            "a head with one",
            "text behind",
            "no end",
            "no end of the pixels",
            "few pixels",
            "only a head",
            "only a signature",
        ),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes, channels: int) -> None:
    assert decode_plain(data, channels, max_pixels=MAX_PIXELS) is None


def test_pixels_that_end_early_are_left_to_pillow_and_refused() -> None:
    at = PLAIN.index(b"IDAT")
    few = zlib.compress(zlib.decompress(PLAIN[at + 4 : -16])[:-1])
    data = PLAIN[: at - 4] + chunk(b"IDAT", few) + chunk(b"IEND", b"")
    assert decode_plain(data, 3, max_pixels=MAX_PIXELS) is None
    with pytest.raises(UnsupportedImage, match="cannot be decoded"):
        decode(data, ImageSpec(20, 30, 3))


def test_a_picture_on_its_side_is_still_turned_upright() -> None:
    image = picture(20, 30, "RGB")
    turned = decode(png(image, exif=EXIF), ImageSpec(30, 20, 3))
    assert np.array_equal(turned, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_a_larger_file_is_resized_as_pillow_resizes_it() -> None:
    image = picture(50, 70, "RGB")
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(png(image), ImageSpec(32, 32, 3)), expected)


def test_too_many_pixels_are_still_refused_by_their_header() -> None:
    with pytest.raises(UnsupportedImage, match=r"at most 100 pixels, received 30 × 20 = 600"):
        decode(PLAIN, ImageSpec(8, 8, 3), max_pixels=100)


def test_a_memoryview_is_as_good_as_bytes() -> None:
    spec = ImageSpec(20, 30, 3)
    assert np.array_equal(decode(memoryview(PLAIN), spec), decode(PLAIN, spec))
