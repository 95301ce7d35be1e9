"""Pictures side by side in one figure: samples, predictions, mistakes, heat maps, feature maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.figures import new_figure, save

RIGHT: Final = "#1a7f37"
WRONG: Final = "#c4321f"
NEUTRAL: Final = "#333333"

_TILE_INCH: Final = 1.5
_CAPTION_LINE: Final = 0.11  # of a tile's height
_GAP: Final = 0.08
_HEAT_OPACITY: Final = 0.5


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a grid.

    Args:
        picture: `uint8[h, w, 1 or 3]`, or `float[h, w]`, which is drawn from its lowest to its highest value.
        caption: Below it; may have several lines.
        colour: Of the caption.
        heat: `float[h', w']` 0..1, laid over the picture, or nothing.
    """

    picture: NDArray[Any]
    caption: str = ""
    colour: str = NEUTRAL
    heat: NDArray[np.float32] | None = None


def draw(tiles: Sequence[Tile], file: Path, *, title: str = "", columns: int = 6) -> None:
    """Draws tiles row by row.

    All lie in one coordinate system, a tile being 1 wide: axes of their own would take ten times as long to lay out.

    Args:
        tiles: At least one.
        file: The PNG to write.
        title: Above all.
        columns: Tiles in a row.
    """
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    lines = max(tile.caption.count("\n") + 1 if tile.caption else 0 for tile in tiles)
    step = 1 + _GAP + lines * _CAPTION_LINE
    # A title needs room even above a single tile.
    figure = new_figure(max(3.5, columns * _TILE_INCH * (1 + _GAP)), rows * step * _TILE_INCH + (0.4 if title else 0))
    axes = figure.subplots()
    for index, tile in enumerate(tiles):
        _place(axes, tile, (index % columns) * (1 + _GAP), (index // columns) * step)
    axes.set(xlim=(0, columns * (1 + _GAP) - _GAP), ylim=(rows * step, 0), aspect="equal")
    axes.set_title(title, parse_math=False)
    axes.axis("off")
    save(figure, file)


def _place(axes: Any, tile: Tile, left: float, top: float) -> None:
    height, width = tile.picture.shape[:2]
    across, down = width / max(height, width), height / max(height, width)
    extent = (left, left + across, top + down, top)
    picture = tile.picture[..., 0] if tile.picture.shape[2:] == (1,) else tile.picture
    bounds = {"vmin": 0, "vmax": 255} if picture.dtype == np.uint8 else {}
    axes.imshow(picture, cmap="gray" if bounds else "viridis", extent=extent, interpolation="nearest", **bounds)
    if tile.heat is not None:
        heat = {"cmap": "jet", "alpha": _HEAT_OPACITY, "vmin": 0, "vmax": 1}
        axes.imshow(tile.heat, extent=extent, interpolation="bilinear", **heat)
    axes.text(left, top + down + 0.03, tile.caption, va="top", fontsize=7, color=tile.colour, parse_math=False)
