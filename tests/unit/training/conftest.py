"""Small data folders of real PNG files."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import __main__


def png(seed: int, size_px: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """Renders noise that differs by seed; `size_px` is (height, width)."""
    channels = {"L": (), "RGB": (3,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_px, *channels), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return encoded.getvalue()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Returns a function that runs `python -m training` in this process and returns its exit code."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["training", *arguments])
        return __main__.main()

    return call


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes `<root>/<split>/<class>/<i>.png` and returns the root."""

    def make(
        classes: Sequence[str] = ("cat", "dog"),
        splits: Sequence[str] = ("train", "test"),
        count: int = 4,
        size_px: tuple[int, int] = (8, 8),
        mode: str = "RGB",
    ) -> Path:
        root = tmp_path / "photos"
        for split_index, split in enumerate(splits):
            for class_index, label in enumerate(classes):
                folder = root / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    seed = (split_index * 100 + class_index) * 1000 + number
                    (folder / f"{number}.png").write_bytes(png(seed, size_px, mode))
        return root

    return make
