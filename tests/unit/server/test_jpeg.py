"""The short way of JPEG files gives what Pillow gives, and leaves to Pillow whatever is not plain."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnsupportedImage
from server.images import ImageSpec, decode
from server.jpeg import decode_plain
from server.resize import PADDED

MAX_PIXELS = 1_000_000
LEAST_PX = 64


def picture(height: int, width: int, mode: str, seed: int = 0) -> Image.Image:
    """Smooth areas and noise, so that scaling, chroma and rounding all show."""
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, channels), np.uint8)
    fine = random.integers(0, 24, (height, width, channels), np.uint8)
    smooth = np.stack(
        [
            np.asarray(Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
            for channel in range(channels)
        ],
        axis=-1,
    )
    pixels = (smooth // 2 + fine).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (2 * max(spec.width_px, spec.height_px),) * 2)
        pixels = image.convert("L" if spec.channels == 1 else "RGB")
    if pixels.size != (spec.width_px, spec.height_px):
        pixels = pixels.resize((spec.width_px, spec.height_px), Image.Resampling.BILINEAR)
    return np.asarray(pixels).reshape(spec.shape)


@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    mode=st.sampled_from(["L", "RGB"]),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    form=st.sampled_from(["baseline", "progressive"]),
    size=st.sampled_from([(32, 32), (8, 40), (64, 16)]),
)
@settings(max_examples=60, deadline=None)
def test_every_plain_file_gives_the_pixels_that_pillow_gives(
    height: int, width: int, mode: str, quality: int, subsampling: int, form: str, size: tuple[int, int]
) -> None:
    spec = ImageSpec(*size, 1 if mode == "L" else 3)
    data = jpeg(
        picture(height, width, mode),
        quality=quality,
        subsampling=subsampling,
        progressive=form == "progressive",
        optimize=True,
    )
    assert decode_plain(data, spec.shape, least_px=LEAST_PX, max_pixels=MAX_PIXELS) is not None
    assert np.array_equal(decode(data, spec), by_pillow(data, spec))


@pytest.mark.parametrize(("side", "scale"), [(127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (4096, 8)])
def test_a_large_file_is_decoded_at_the_scale_that_pillow_chooses(side: int, scale: int) -> None:
    data = jpeg(Image.new("RGB", (side, side + 5), "orange"))
    pixels = decode_plain(data, (32, 32, 3), least_px=LEAST_PX, max_pixels=1 << 30)
    assert pixels is not None
    assert pixels.shape == (-(-(side + 5) // scale), -(-side // scale), PADDED)


@pytest.mark.parametrize(("shape", "channels"), [((40, 30, 3), 3), ((30, 40, 3), PADDED), ((1, 1, 3), PADDED)])
def test_a_file_of_the_targets_size_is_not_laid_out_to_be_resized(shape: tuple[int, int, int], channels: int) -> None:
    pixels = decode_plain(jpeg(picture(40, 30, "RGB")), shape, least_px=2 * max(shape), max_pixels=MAX_PIXELS)
    assert pixels is not None
    assert pixels.shape[2] == channels


EXIF = Image.Exif()
EXIF[0x0112] = 6  # lies on its side


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (jpeg(picture(20, 30, "RGB"), exif=EXIF), 3),
        (jpeg(picture(20, 30, "RGB"), xmp=b"<x:xmpmeta/>"), 3),
        (jpeg(picture(20, 30, "CMYK")), 3),
        (jpeg(picture(20, 30, "L")), 3),
        (jpeg(picture(20, 30, "RGB")), 1),
        (jpeg(picture(2000, 600, "L")), 1),
        (jpeg(picture(20, 30, "RGB"))[:-40], 3),
        (jpeg(picture(20, 30, "RGB"))[:300], 3),
        (b"\xff\xd8\xff", 3),
        (b"\xff\xd8" + b"\xff" * 40, 3),
        (b"\xff\xd8\xff\xda\x00\x00", 3),
    ],
    ids=[
        *("exif", "xmp", "cmyk", "grey for rgb", "rgb for grey", "too many pixels"),
        *("damaged pixels", "damaged head", "three bytes", "no segment", "nothing but a scan"),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes, channels: int) -> None:
    assert decode_plain(data, (32, 32, channels), least_px=LEAST_PX, max_pixels=MAX_PIXELS) is None


def test_a_picture_on_its_side_is_still_turned_upright() -> None:
    image = picture(20, 30, "RGB")
    turned = decode(jpeg(image, exif=EXIF, quality=95, subsampling=0), ImageSpec(30, 20, 3))
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(turned - expected).mean() < 4


def test_too_many_pixels_are_still_refused_by_their_header() -> None:
    with pytest.raises(UnsupportedImage, match=r"at most 100 pixels, received 30 × 20 = 600"):
        decode(jpeg(picture(20, 30, "RGB")), ImageSpec(8, 8, 3), max_pixels=100)


def test_a_memoryview_is_as_good_as_bytes() -> None:
    data = jpeg(picture(20, 30, "RGB"))
    spec = ImageSpec(20, 30, 3)
    assert np.array_equal(decode(memoryview(data), spec), decode(data, spec))
