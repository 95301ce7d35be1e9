"""Which ways to alter training pictures, and how much: `flip,crop,cutout=8,mixup=0.2`.

TensorFlow is not needed to read the words; `training.transforms` does what they say.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Final, Self

# What a name means without `=`: a mirrored half, pad-and-crop by 4 of 32 pixels, cutout of 8 of 32 (DeVries and Taylor,
# 2017, arXiv:1708.04552), mixup of the ImageNet recipe (Zhang et al., 2018, arXiv:1710.09412), the rest moderate.
USUAL: Final = {
    "flip": 0.5,
    "crop": 1 / 8,
    "rotate": 10.0,
    "zoom": 0.1,
    "brightness": 0.2,
    "cutout": 1 / 4,
    "mixup": 0.2,
}
_LARGEST: Final = {
    "flip": 1.0,
    "crop": 4096.0,
    "rotate": 180.0,
    "zoom": 0.9,
    "brightness": 1.0,
    "cutout": 4096.0,
    "mixup": 8.0,
}


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Strengths; 0 leaves a way out.

    Args:
        flip: Share of pictures that are mirrored left to right.
        crop: Shift by up to so many pixels each way, or such a share of the side if below 1; what comes in from
            outside is the mirrored edge. The same as padding and cutting out.
        rotate: Turn by up to so many degrees each way.
        zoom: Enlarge or shrink by up to such a share.
        brightness: Lighten or darken by up to such a share of the full scale.
        cutout: Side of a square that is painted over with the batch's mean colour: pixels, or a share of the shorter
            side if below 1.
        mixup: α of the Beta(α, α) distribution by which two pictures and their labels are mixed.
    """

    flip: float = 0.0
    crop: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads names with optional strengths, separated by commas, or "none".

        Raises:
            ValueError: A name is unknown or given twice, or a strength is no number within its bounds.
        """
        if text == "none":
            return cls()
        strengths: dict[str, float] = {}
        for word in text.split(","):
            name, equals, strength = word.strip().partition("=")
            if name not in USUAL or name in strengths:
                raise ValueError(
                    f"expected auto, none or different names of {', '.join(USUAL)}, each with =strength or without"
                )
            strengths[name] = _strength(name, strength) if equals else USUAL[name]
        return cls(**strengths)

    def without_flip(self) -> Self:
        """Leaves mirroring out, for pictures whose mirror image means something else."""
        return replace(self, flip=0.0)

    def __str__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}
        return ",".join(f"{name}={strength:g}" for name, strength in given.items()) or "none"


def _strength(name: str, text: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not 0 < strength <= _LARGEST[name]:
        raise ValueError(f"expected a strength of {name} above 0 and up to {_LARGEST[name]:g}")
    return strength


def pixels(strength: float, side_px: int) -> int:
    """Turns a strength of `crop` or `cutout` into pixels: a share of the side if below 1, and at least one pixel."""
    return max(1, round(strength * side_px)) if strength < 1 else round(strength)
