"""The short way of resizing gives what Pillow's own gives, and leaves what it was given as it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from server.resize import PADDED, resized

sides = st.integers(1, 300)


def by_pillow(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[..., :3]))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)


@given(source=st.tuples(sides, sides), target=st.tuples(sides, sides), channels=st.sampled_from([1, 3, PADDED]))
@settings(max_examples=60, deadline=None)
def test_every_picture_gets_the_pixels_that_pillow_gives(
    source: tuple[int, int], target: tuple[int, int], channels: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*source, channels), np.uint8)
    before = pixels.copy()
    found = resized(pixels, target[1], target[0])
    assert found.dtype == np.uint8
    assert np.array_equal(found, by_pillow(pixels, target[1], target[0]))
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("channels", [1, PADDED])
def test_a_result_outlives_the_picture_that_it_is_of(channels: int) -> None:
    def make() -> NDArray[np.uint8]:
        return np.full((64, 48, channels), 200, np.uint8)

    found = [resized(make(), 32, 32) for _ in range(50)]
    assert all((one == 200).all() for one in found)
    assert all(one.shape == (32, 32, 1 if channels == 1 else 3) for one in found)
