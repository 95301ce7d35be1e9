"""Reads the pickles in which CIFAR is published, and runs nothing that is written in them.

A pickle is a program: it names functions, and reading it calls them. Here only a few names are known, and each stands
for a small class below rather than for the function of that name, NumPy's own reconstructors included (a forged state
can make those read memory they do not own). Anything else that a pickle names is refused before it is looked up.
"""

import io
import pickle
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

_ITEM_TYPES: Final = ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8")
_PLAIN: Final = (bytes, str, int, float, bool, type(None))


class _Type:
    """Stands for `numpy.dtype`: only numbers of fixed width."""

    __slots__ = ("order", "text")

    def __init__(self, text: str | bytes, *_: object) -> None:
        self.text, self.order = _text(text), "<"
        if self.text not in _ITEM_TYPES:
            raise pickle.UnpicklingError(f"arrays of {self.text!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, …); all else describes structures, which were refused above.
        self.order = ">" if _text(state[1]) == ">" else "<"

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.text)


class _Array:
    """Stands for `numpy.ndarray`: holds a state until it is checked and copied into an array."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def numpy(self) -> NDArray[Any]:
        _, shape, kind, is_fortran, data = self.state
        content = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(content, dtype=kind.numpy()).reshape(shape, order="F" if is_fortran else "C")


def _bytes(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes for Python 2 to read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _bytes,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the name {module}.{name}") from None


def read(data: bytes, place: str) -> dict[str, Any]:
    """Reads a pickled dict of numbers, texts, lists and arrays, as Python 2 or 3 wrote it.

    Args:
        data: The pickle.
        place: What to call it in messages.

    Returns:
        The dict, its keys as text; arrays are copies of the bytes in the pickle.

    Raises:
        TrainingError: It is damaged, or holds anything else. Nothing in it was run.
    """
    try:
        return _plain_dict(_Reader(io.BytesIO(data), encoding="bytes").load())  # Python 2's strings are bytes
    except Exception as error:  # a damaged pickle makes the reader raise almost anything
        raise TrainingError(
            f"expected a pickled dict of numbers, texts, lists and arrays in {place}, received"
            f" {error or 'a damaged one'}; download the data again from their publisher"
        ) from error


def _plain_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise pickle.UnpicklingError(f"a {type(value).__name__} instead of a dict")
    return {_text(key): _plain(entry) for key, entry in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if type(value) in _PLAIN:
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__}")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
