import contextlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnsupportedImage
from server.images import UNKNOWN_PIXELS, ImageSpec, decode, header_pixels, load_formats

RGB = ImageSpec(8, 8, 3)
GREY = ImageSpec(8, 8, 1)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def random_pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def quadrants(size: int = 8) -> NDArray[np.uint8]:
    """Four colours, so that every way of turning the picture shows: red, green / blue, white."""
    half = size // 2
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:half, :half, 0] = pixels[:half, half:, 1] = pixels[half:, :half, 2] = 255
    pixels[half:, half:] = 255
    return pixels


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_a_picture_of_the_right_size_comes_back_as_it_was(form: str) -> None:
    pixels = random_pixels(8, 8, 3)
    assert np.array_equal(decode(encode(Image.fromarray(pixels), form), RGB), pixels)


def test_lossless_webp_comes_back_as_it_was() -> None:
    pixels = random_pixels(8, 8, 3)
    assert np.array_equal(decode(encode(Image.fromarray(pixels), "WEBP", lossless=True), RGB), pixels)


def test_lossy_jpeg_comes_back_nearly() -> None:
    data = encode(Image.fromarray(quadrants()), "JPEG", quality=95, subsampling=0)
    assert np.abs(decode(data, RGB).astype(int) - quadrants()).max() < 16


def test_a_memoryview_is_as_good_as_bytes() -> None:
    data = encode(Image.fromarray(quadrants()), "PNG")
    assert np.array_equal(decode(memoryview(data), RGB), quadrants())


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (50, 150, 250)]
    for form in ("GIF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert (decode(data, GREY) == 50).all()


def test_a_tiff_with_several_pages_gives_its_first() -> None:
    pages = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (50, 250)]
    assert (decode(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]), GREY) == 50).all()


ORIENTATIONS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(quadrants()), "PNG", exif=exif)
    assert np.array_equal(decode(data, RGB), ORIENTATIONS[orientation](quadrants()))


def test_exif_orientation_comes_before_the_resize() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.zeros((4, 16, 3), np.uint8)
    wide[:, :8] = 255  # after turning: the upper half
    upright = decode(encode(Image.fromarray(wide), "PNG", exif=exif), ImageSpec(16, 4, 3))
    assert (upright[:8] == 255).all()
    assert (upright[8:] == 0).all()


def test_cmyk_becomes_rgb() -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 1] = inks[..., 2] = 255  # magenta and yellow make red
    for form in ("JPEG", "TIFF"):
        red = decode(encode(Image.fromarray(inks, "CMYK"), form), RGB)
        assert (red[..., 0] > 240).all()
        assert (red[..., 1:] < 16).all()


@pytest.mark.parametrize("value", [0, 255, 256, 32_768, 65_535])
def test_16_bits_keep_the_8_highest(value: int) -> None:
    data = encode(Image.fromarray(np.full((8, 8), value, np.uint16)), "PNG")
    assert (decode(data, GREY) == value >> 8).all()
    assert (decode(data, RGB) == value >> 8).all()


def test_a_16_bit_tiff_too() -> None:
    data = encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "TIFF")
    assert (decode(data, GREY) == 40_000 >> 8).all()


def test_32_bit_samples_are_read_as_16_bit_ones_and_floats_as_bytes() -> None:
    whole = encode(Image.fromarray(np.full((8, 8), 40_000, np.int32)), "TIFF")
    assert (decode(whole, GREY) == 40_000 >> 8).all()
    fractions = np.full((8, 8), 99.7, np.float32)
    fractions[0] = [-5, 300, np.inf, -np.inf, 0, 255, 1, 2]
    pixels = decode(encode(Image.fromarray(fractions), "TIFF"), GREY)[..., 0]
    assert pixels[0].tolist() == [0, 255, 255, 0, 0, 255, 1, 2]
    assert (pixels[1:] == 99).all()


def test_a_nan_sample_is_black() -> None:
    data = encode(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")
    assert (decode(data, GREY) == 0).all()


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(quadrants()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert np.array_equal(decode(encode(image, "PNG"), RGB), quadrants())
    assert np.array_equal(decode(encode(image, "GIF"), RGB), quadrants())


def test_black_and_white_of_one_bit() -> None:
    image = Image.fromarray(quadrants()[..., 2]).convert("1")
    assert np.array_equal(decode(encode(image, "PNG"), GREY)[..., 0], quadrants()[..., 2])


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[4:, :, 3] = 255
    for spec in (RGB, GREY):
        pixels = decode(encode(Image.fromarray(rgba), "PNG"), spec)
        assert (pixels[:4] == 255).all()
        assert (pixels[4:] == 0).all()
    half = np.zeros((8, 8, 2), np.uint8)
    half[..., 1] = 128
    assert (np.abs(decode(encode(Image.fromarray(half, "LA"), "PNG"), GREY).astype(int) - 127) <= 1).all()


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert (decode(encode(image, "PNG", transparency=0), RGB) == 255).all()
    assert (decode(encode(image, "GIF", transparency=0), RGB) == 255).all()


def test_a_transparent_16_bit_value_is_white() -> None:
    pixels = np.full((8, 8), 1000, np.uint16)
    pixels[4:] = 60_000
    decoded = decode(encode(Image.fromarray(pixels), "PNG", transparency=1000), GREY)
    assert (decoded[4:] == 60_000 >> 8).all()


def test_grey_becomes_rgb_and_rgb_grey() -> None:
    grey = random_pixels(8, 8)
    assert np.array_equal(decode(encode(Image.fromarray(grey), "PNG"), RGB), np.repeat(grey[..., None], 3, axis=2))
    colour = random_pixels(8, 8, 3)
    weighted = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encode(Image.fromarray(colour), "PNG"), GREY)[..., 0] - weighted).max() <= 1


def test_a_resize_averages_over_the_whole_picture() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[::2] = 255
    pixels = decode(encode(Image.fromarray(stripes), "PNG"), GREY)
    assert (np.abs(pixels.astype(int) - 128) <= 5).all()  # the first and last row see one stripe more or less


def test_a_small_picture_is_enlarged() -> None:
    assert (decode(encode(Image.new("RGB", (1, 1), "red"), "PNG"), RGB) == [255, 0, 0]).all()


def test_the_picture_is_stretched_not_cropped() -> None:
    wide = np.zeros((8, 32), np.uint8)
    wide[:, 16:] = 255
    pixels = decode(encode(Image.fromarray(wide), "PNG"), GREY)[..., 0]
    assert (pixels[:, :3] == 0).all()
    assert (pixels[:, 5:] == 255).all()


@pytest.mark.parametrize("size", [(256, 256), (1000, 750), (300, 2000), (65, 4000)])
def test_a_jpeg_decoded_at_reduced_scale_looks_the_same(size: tuple[int, int]) -> None:
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256 // 2], axis=2)
    image = Image.fromarray(pixels.astype(np.uint8))
    spec = ImageSpec(32, 32, 3)
    reduced = decode(encode(image, "JPEG", quality=95), spec).astype(int)
    whole = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(reduced - whole).mean() < 3


def test_the_reduced_scale_is_used_and_never_goes_below_twice_the_target() -> None:
    image = Image.open(io.BytesIO(encode(Image.new("RGB", (1024, 1024)), "JPEG")))
    image.draft(None, (64, 64))
    assert image.size == (128, 128)  # Pillow stops at an eighth
    image = Image.open(io.BytesIO(encode(Image.new("RGB", (300, 300)), "JPEG")))
    image.draft(None, (64, 64))
    assert min(image.size) >= 64


# ---- what is refused ----


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no bytes"),
        (b"Dear diary, today we went swimming", "Dear diary"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "<svg"),
        (b"%PDF-1.7", "%PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "%!PS"),  # Pillow would run Ghostscript for it
        (b"\xff\xd8\xff", "3 bytes"),
        (b"\x89PNG\r\n\x1a\n", "8 bytes"),
        (b"GIF89a", "6 bytes"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedImage, match=re.escape(words)):
        decode(data, RGB)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file_is_refused_wherever_it_ends(form: str) -> None:
    data = encode(Image.fromarray(random_pixels(64, 64, 3)), form)
    for share in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises(UnsupportedImage):
            decode(data[: int(len(data) * share)], RGB)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_bytes_give_a_picture_or_our_error_and_nothing_else(form: str) -> None:
    data = bytearray(encode(Image.fromarray(random_pixels(24, 24, 3)), form))
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.integers(0, len(data), 8):
            damaged[position] = random.integers(0, 256)
        with contextlib.suppress(UnsupportedImage):
            assert decode(bytes(damaged), RGB, max_pixels=10_000).shape == (8, 8, 3)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9_000, 9_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedImage, match=r"pixels|decompression bomb"):
        decode(png_that_claims(*size), RGB)


def test_the_limit_of_pixels_is_the_callers() -> None:
    data = encode(Image.new("L", (100, 100)), "PNG")
    assert decode(data, GREY, max_pixels=10_000).shape == (8, 8, 1)
    with pytest.raises(UnsupportedImage, match="at most 9,999 pixels, received 100 × 100 = 10,000"):
        decode(data, GREY, max_pixels=9_999)


def test_a_limit_above_pillows_own_holds_too() -> None:
    with pytest.raises(UnsupportedImage, match=r"pixels|decoded"):
        decode(png_that_claims(20_000, 20_000), RGB, max_pixels=10**9)


def test_a_model_takes_1_or_3_channels() -> None:
    with pytest.raises(ValueError, match="received 4"):
        ImageSpec(8, 8, 4)
    assert ImageSpec(2, 3, 1).shape == (2, 3, 1)


# ---- header_pixels ----


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_header_tells_its_pixels(form: str) -> None:
    assert header_pixels(encode(Image.new("RGB", (30, 20)), form)) == 600


def test_a_header_behind_much_metadata_tells_them_too() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 20_000
    for options in ({"exif": exif}, {"progressive": True}, {"comment": b"y" * 1000}):
        assert header_pixels(encode(Image.new("RGB", (30, 20)), "JPEG", **options)) == 600


@pytest.mark.parametrize("form", ["WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_are_not_looked_into(form: str) -> None:
    assert header_pixels(encode(Image.new("RGB", (30, 20)), form)) == UNKNOWN_PIXELS


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_header_cut_anywhere_is_unknown_or_right(form: str) -> None:
    data = encode(Image.new("RGB", (30, 20)), form)
    for end in range(len(data)):
        assert header_pixels(memoryview(data)[:end]) in (UNKNOWN_PIXELS, 600)


def test_a_jpeg_whose_segments_lead_nowhere() -> None:
    assert header_pixels(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 10) == UNKNOWN_PIXELS
    assert header_pixels(b"\xff\xd8" + b"\x00" * 40) == UNKNOWN_PIXELS


def test_formats_can_be_loaded_beforehand() -> None:
    load_formats()
    assert {"JPEG", "PNG", "WEBP"} <= set(Image.OPEN)
