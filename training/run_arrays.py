"""Reads the arrays of a run folder."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read(file: Path, *names: str) -> tuple[NDArray[Any], ...]:
    """Reads arrays of an `.npz` file, and closes it even where NumPy, which finds no archive in it, would not.

    Args:
        file: The archive.
        names: Of the arrays.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no archive.
        KeyError: It lacks an array.
        zipfile.BadZipFile: It is damaged.
    """
    with file.open("rb") as stream, np.load(stream) as arrays:
        return tuple(arrays[name] for name in names)
