"""What `validate` learns from one picture, in one pass over the data.

file ──hash──▶ sha256        ──open──▶ format, mode, size        ──decode──▶ 16 × 16 grey: its signature, or a fault
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server import images
from server.errors import UnsupportedImage
from server.images import ImageSpec
from training.data.catalogue import Item, Pixels
from training.data.reading import content_hash, each

SIGNATURE_PX: Final = 16
_SPEC: Final = ImageSpec(SIGNATURE_PX, SIGNATURE_PX, 1)
_ARRAY_MODES: Final = {2: "L", 3: "RGB"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture as it was found.

    Args:
        item: Which one.
        sha256: Of its contents, in hex; "" if the file cannot be read.
        size_bytes: Of the file, or of the row of pixels.
        kind: "JPEG", "PNG", …, or "pixels" for a row of an array; "" with a fault.
        mode: Pillow's name for its channels, such as "RGB"; "" with a fault.
        size_px: Height and width as stored; (0, 0) with a fault.
        signature: The picture in grey, `uint8[16, 16]`; zeros with a fault.
        fault: Why it cannot be learnt from, or "".
    """

    item: Item
    sha256: str
    size_bytes: int
    kind: str
    mode: str
    size_px: tuple[int, int]
    signature: NDArray[np.uint8]
    fault: str = ""


def look(items: Sequence[Item]) -> list[Picture]:
    """Reads and decodes every picture once.

    Args:
        items: The pictures.

    Returns:
        What each is, in the same order; those that cannot be read or decoded have a `fault`.
    """
    return list(each(items, _picture, f"checking {len(items):,} pictures"))


def _picture(item: Item) -> Picture:
    if isinstance(item.content, Pixels):
        row = item.content.row
        height, width = row.shape[:2]
        mode = _ARRAY_MODES[row.ndim]
        signature = images.decode(item.read(), _SPEC)[:, :, 0]
        return Picture(item, content_hash(item, b""), row.nbytes, "pixels", mode, (height, width), signature)
    try:
        data = item.read()
    except OSError as error:
        return _faulty(item, "", 0, f"cannot be read: {error}")
    return _encoded(item, data)


def _encoded(item: Item, data: bytes) -> Picture:
    sha256 = content_hash(item, data)
    try:
        signature = images.decode(data, _SPEC)[:, :, 0]  # as training does: what passes here is learnt from there
    except UnsupportedImage as error:
        return _faulty(item, sha256, len(data), str(error))
    with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
        width, height = image.size
        return Picture(item, sha256, len(data), str(image.format), image.mode, (height, width), signature)


def _faulty(item: Item, sha256: str, size_bytes: int, fault: str) -> Picture:
    nothing = np.zeros((SIGNATURE_PX, SIGNATURE_PX), dtype=np.uint8)
    return Picture(item, sha256, size_bytes, "", "", (0, 0), nothing, fault)
