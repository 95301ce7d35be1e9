"""What ran out, where a framework says only that a resource is exhausted.

    MemoryError ──────────────────────────────────────────────────────▶ memory
    TensorFlow's, JAX's: RESOURCE_EXHAUSTED ─┬─ any other words ──────▶ memory
                                             └─ the system's words ───▶ disk
    OSError: ENOSPC, EDQUOT ──────────────────────────────────────────▶ disk

The classes are told by their names, so that no framework is imported that is not at work.
"""

import errno
import os
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS: Final = tuple(os.strerror(number) for number in _FULL)  # TensorFlow keeps them, and drops the number
_JAX: Final = ("XlaRuntimeError", "JaxRuntimeError")  # of every kind of error; the kind is its message's first word


def is_memory(error: Exception) -> bool:
    """Tells whether memory ran out, the machine's or a device's."""
    return isinstance(error, MemoryError) or (_is_exhausted(error) and not is_disk(error))


def is_disk(error: Exception) -> bool:
    """Tells whether a disk is full, or what one may write on it."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return _is_exhausted(error) and any(words in str(error) for words in _FULL_WORDS)


def _is_exhausted(error: Exception) -> bool:
    name = type(error).__name__
    return name == "ResourceExhaustedError" or (name in _JAX and "RESOURCE_EXHAUSTED" in str(error))
