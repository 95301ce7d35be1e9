"""Imports TensorFlow without its remarks about the processor."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps what native libraries write to standard error while they are loaded, and shows it only on failure.

    TensorFlow 2.21 writes two remarks about oneDNN when it is imported, before it reads TF_CPP_MIN_LOG_LEVEL, so the
    variable alone does not silence them. Python's own `sys.stderr` goes the same way meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(kept, captured.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
