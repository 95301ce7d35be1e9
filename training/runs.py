"""Run folders: `runs/<name>/<number>/`, counted from 1 and never overwritten.

    draft: .partial-… ──every file──▶ run.json, last ──rename──▶ <number>

A folder with a number is finished; anything else is hidden and removed when training fails or is interrupted.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import TrainingError

SCHEMA: Final = 1
RECORD: Final = "run.json"
METRICS: Final = "metrics.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Args:
        path: Its folder.
        record: The contents of `run.json`.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.record["name"])

    @property
    def number(self) -> int:
        """The run's number under its name."""
        return int(self.record["run"])

    def metrics(self) -> dict[str, Any]:
        """Reads `metrics.json`.

        Raises:
            TrainingError: It is missing or damaged.
        """
        return _read_json(self.path / METRICS)


@contextmanager
def draft(root: Path, name: str) -> Iterator[Path]:
    """Opens a hidden folder for a run's files; it is removed unless `publish` renamed it.

    Args:
        root: The folder of all runs.
        name: The run's name.

    Yields:
        The hidden folder, empty.

    Raises:
        TrainingError: The folder cannot be written.
    """
    folder = root / name / f".partial-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise TrainingError(f"cannot write to {root / name} ({error}); choose another folder with --runs") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def publish(folder: Path, record: Mapping[str, Any]) -> Run:
    """Finishes a draft: writes `run.json` and gives the folder the next free number.

    Args:
        folder: A folder that `draft` opened, with every other file in place.
        record: What `run.json` shall hold, less `schema` and `run`.
    """
    while True:
        number = max(_taken(folder.parent), default=0) + 1
        complete = {"schema": SCHEMA, "name": folder.parent.name, "run": number, **record}
        write_json(folder / RECORD, complete)
        target = folder.parent / str(number)
        try:
            folder.rename(target)
        except OSError as error:
            # Another training took the number between the look and the rename.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            continue
        _sync_folder(target.parent)
        return Run(target, complete)


def resolve(root: Path, reference: str) -> Run:
    """Finds a finished run.

    Args:
        root: The folder of all runs.
        reference: A run folder's path, a name (its latest run), or `name/number`.

    Raises:
        TrainingError: There is no such run.
    """
    for candidate in (Path(reference), root / reference):
        if (candidate / RECORD).is_file():
            return read(candidate)
        numbers = _numbers(candidate)
        if numbers:
            return read(candidate / str(max(numbers)))
    names = sorted({run.name for run in every(root)})
    raise TrainingError(
        f"no finished run '{reference}' in {root}; expected a run folder or one of: {', '.join(names) or 'none yet'};"
        " make one with `python -m training train`"
    )


def read(path: Path) -> Run:
    """Reads a run folder's record.

    Raises:
        TrainingError: It is missing, damaged or of a schema that this version does not know.
    """
    record = _read_json(path / RECORD)
    if record.get("schema") != SCHEMA:
        raise TrainingError(
            f"expected schema {SCHEMA} in {path / RECORD}, received {record.get('schema')!r};"
            " use the version of Shoal that wrote it, or train again"
        )
    return Run(path, record)


def every(root: Path) -> list[Run]:
    """Lists the finished runs by name and number."""
    if not root.is_dir():
        return []
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return [read(folder / str(number)) for folder in folders for number in sorted(_numbers(folder))]


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file such that a reader sees the old one or the new one, never a part."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=2, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _numbers(folder: Path) -> list[int]:
    """Lists the finished runs' numbers."""
    return [number for number in _taken(folder) if (folder / str(number) / RECORD).is_file()]


def _taken(folder: Path) -> list[int]:
    """Lists the numbers that are in use, be it by a run that someone emptied."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return [int(name) for name in names if name.isascii() and name.isdigit() and not name.startswith("0")]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {file} ({error}); the run folder is incomplete, train again") from None
    if not isinstance(value, dict):
        raise TrainingError(f"expected a JSON object in {file}, received {type(value).__name__}; train again")
    return value


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
