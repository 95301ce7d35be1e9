"""TensorFlow, tf2onnx and ONNX Runtime talk a lot; their words go to a side file instead of the user's terminal.

Nothing is lost: `--verbose` leaves everything on the terminal, and an unexpected exception prints the file's end.
"""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO, Final

TAIL_BYTES: Final = 8_000


def prepare_environment() -> None:
    """Sets what the libraries read when they are first imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # The GPU is for training: an export on the CPU is what the int8 figures are about, and the same on every machine.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@contextlib.contextmanager
def side_file(*, verbose: bool) -> Iterator[IO[str]]:
    """Sends what is written to the error stream, by C++ too, to a temporary file while inside.

    Args:
        verbose: Leave the error stream as it is.

    Yields:
        The real error stream, for what the user must see.
    """
    if verbose:
        yield sys.stderr
        return
    kept = os.dup(2)
    with os.fdopen(kept, "w", encoding="utf-8") as real, tempfile.TemporaryFile() as side:
        sys.stderr.flush()
        os.dup2(side.fileno(), 2)
        try:
            yield real
        except Exception:
            _copy_tail(side, real)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)


@contextlib.contextmanager
def noisy_library() -> Iterator[None]:
    """Sends warnings and prints of the libraries to the log `export` while inside."""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("always")
        yield
    for warning in caught:
        logging.getLogger("export").info("%s: %s", warning.category.__name__, warning.message)


def _copy_tail(side: IO[bytes], real: IO[str]) -> None:
    size = side.seek(0, os.SEEK_END)
    side.seek(max(0, size - TAIL_BYTES))
    real.write(side.read().decode(errors="replace"))
