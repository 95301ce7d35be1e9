"""Writing so that nobody sees half of anything: fsync, rename, fsync of the folder."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error that does not: a full disk fails a write, which knows no path.

    Args:
        path: Of the file that is written inside.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file, or replaces it, in one step.

    Args:
        path: The file. What is written beside it first has a hidden name.
        data: Its bytes.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        with naming(path), beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json_whole(path: Path, value: Any) -> None:
    """Writes a value as JSON in one step.

    Args:
        path: The file.
        value: What `json` can write.
    """
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def fsync_folder(folder: Path) -> None:
    """Makes renames inside a folder last through a power cut.

    Args:
        folder: The folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
