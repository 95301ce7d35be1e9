"""Gives the memory of closed sessions back to the system."""

import ctypes


def trim() -> None:
    """Asks the C library to return free heap pages. Does nothing where it cannot (musl, macOS).

    glibc keeps what ONNX Runtime frees in its arenas. Blocks for some milliseconds, without the interpreter's lock.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
