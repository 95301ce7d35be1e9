"""What may be given as a picture, and what of it goes over the wire.

bytes        a file's content: JPEG, PNG, WebP, BMP, GIF, TIFF   ─▶ bytes, as they are
Path         such a file                                         ─▶ bytes
uint8 array  pixels 0..255 [height, width, channels]             ─▶ Pixels
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from shoal_client.errors import InvalidInput

GREY_NDIM = 2
COLOUR_NDIM = 3


class PixelArray(Protocol):
    """An array of bytes with the buffer protocol: NumPy's, above all."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""


Image: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | PixelArray


class Pixels(NamedTuple):
    """Pixels as the wire wants them.

    Args:
        shape: `[height, width, channels]`, or with the number of pictures in front.
        data: uint8 values in C order.
    """

    shape: tuple[int, ...]
    data: bytes


Payload: TypeAlias = bytes | Pixels


def read_image(image: Image) -> Payload:
    """Reads a picture as far as the wire needs it.

    Args:
        image: A file's content, a path, or an array `uint8[height, width, channels]` (`[height, width]` is grey).

    Raises:
        InvalidInput: It is none of these, or a file that cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, os.PathLike):
        return _read_file(Path(image))
    if isinstance(image, str):
        raise InvalidInput(
            f"expected a picture, received the text {image[:80]!r}; for a file, give Path({image[:80]!r})"
        )
    try:
        view = memoryview(image)  # type: ignore[arg-type]  # whether it is a buffer is found out here
    except TypeError:
        raise InvalidInput(f"expected bytes, a Path or a uint8 array, received {type(image).__name__}") from None
    return _read_view(view)


def join_images(payloads: Sequence[Payload]) -> list[bytes] | Pixels:
    """Makes one request's input of several pictures.

    Args:
        payloads: All files, or all pixels of one shape.

    Returns:
        The files, or one `[n, height, width, channels]`.

    Raises:
        InvalidInput: There is none, or they are of different kinds or shapes.
    """
    if not payloads:
        raise InvalidInput("expected at least one picture, received none")
    files = [payload for payload in payloads if isinstance(payload, bytes)]
    if len(files) == len(payloads):
        return files
    if files:
        raise InvalidInput(f"expected all files or all arrays, received {len(files)} files among {len(payloads)}")
    pixels = [payload for payload in payloads if isinstance(payload, Pixels)]
    shapes = {one.shape for one in pixels}
    if len(shapes) > 1:
        raise InvalidInput(f"expected arrays of one shape, received {sorted(map(list, shapes))}")
    return Pixels((len(pixels), *pixels[0].shape), b"".join(one.data for one in pixels))


def is_file(image: Any) -> bool:
    """Whether reading it waits for a disk."""
    return isinstance(image, os.PathLike)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"expected a file that can be read: {path}: {error.strerror}") from error


def _read_view(view: memoryview) -> Payload:
    if view.format != "B":
        raise InvalidInput(
            f"expected pixels as uint8 from 0 to 255, received an array of type {view.format!r};"
            " convert it: array.astype('uint8')"
        )
    if view.ndim == 1:
        return view.tobytes()
    shape = tuple(view.shape or ())
    if view.ndim not in {GREY_NDIM, COLOUR_NDIM}:
        raise InvalidInput(
            f"expected one picture [height, width, channels], received shape {list(shape)};"
            " classify_batch takes several"
        )
    return Pixels(shape + (1,) * (COLOUR_NDIM - view.ndim), view.tobytes())
