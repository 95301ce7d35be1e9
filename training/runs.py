"""Run folders: `runs/<name>/<number>/`, counted from 1 and never overwritten.

    draft: .partial-… ──every file──▶ run.json, last ──rename──▶ <number>
       └─ .checkpoint/ while it is unfinished: the next training with the same key goes on from there

A folder with a number is finished; anything else is hidden. A draft belongs to the process that holds its lock; the
system lets go of the lock when that process ends, however it ends. A draft without a checkpoint is then removed.
"""

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from training import console
from training.errors import Diverged, TrainingError
from training.files import replacing, sync_folder

SCHEMA: Final = 1
RECORD: Final = "run.json"
METRICS: Final = "metrics.json"
CHECKPOINT: Final = ".checkpoint"
STATE: Final = "state.npz"  # of a checkpoint: without it there is nothing to go on from
# What the commands read of every run.
_NEEDED: Final = ("name", "run", "model", "image", "labels", "epochs", "parameters", "created_at")
_LOCK: Final = ".lock"
_DRAFT: Final = ".partial-"
_KEPT_IN_DRAFTS: Final = frozenset({CHECKPOINT, _LOCK, "tensorboard"})


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
def draft(root: Path, name: str, *, key: str = "any", fresh: bool = False) -> Iterator[Path]:
    """Opens a hidden folder for a run's files; `publish` renames it.

    What an earlier process left unfinished under the same key, with a checkpoint, is opened again. A draft that is left
    by an error is kept for the next time if it holds a checkpoint to go on from, and otherwise removed.

    Args:
        root: The folder of all runs.
        name: The run's name.
        key: Of everything that the run depends on: letters and digits.
        fresh: Remove what is left unfinished under the key.

    Yields:
        The hidden folder: new, or with its checkpoint in it.

    Raises:
        TrainingError: The folder cannot be written.
    """
    try:
        folder, lock = _claimed(root / name, key, fresh=fresh)
    except OSError as error:
        raise TrainingError(f"cannot write to {root / name} ({error}); choose another folder with --runs") from None
    keep = False
    try:
        yield folder
    except Diverged:
        raise
    except BaseException:
        keep = _has_checkpoint(folder)
        raise
    finally:
        _left(folder, keep=keep)
        os.close(lock)


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
        sync_folder(target.parent)
        _tidy(target)
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
        TrainingError: It is missing, damaged, incomplete or of a schema that this version does not know.
    """
    record = _read_json(path / RECORD)
    if record.get("schema") != SCHEMA:
        raise TrainingError(
            f"expected schema {SCHEMA} in {path / RECORD}, received {record.get('schema')!r};"
            " use the version of Shoal that wrote it, or train again"
        )
    missing = [name for name in _NEEDED if name not in record]
    if missing:
        raise TrainingError(f"expected {', '.join(missing)} in {path / RECORD}, received none; train again")
    return Run(path, record)


def every(root: Path) -> list[Run]:
    """Lists the finished runs by name and number; tells of those that cannot be read, and passes them over."""
    if not root.is_dir():
        return []
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    found, faults = [], []
    for path in (folder / str(number) for folder in folders for number in sorted(_numbers(folder))):
        try:
            found.append(read(path))
        except TrainingError as error:
            faults.append(str(error))
    if faults:
        _note(f"note: passed over {len(faults)} of the runs in {root}; the first: {faults[0]}")
    return found


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file such that a reader sees the old one or the new one, never a part."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(file) as stream:
        stream.write(text.encode())


@cache
def _note(line: str) -> None:
    """Says a line once: one command may list the runs many times."""
    console.say(line)


def _claimed(parent: Path, key: str, *, fresh: bool) -> tuple[Path, int]:
    """Takes an unfinished draft of the key, or makes one; removes what nobody can go on with."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in _taken(parent):
        _tidy(parent / str(number))
    others = 0
    for left in sorted(parent.glob(f"{_DRAFT}*")):
        lock = _locked(left)
        if lock is None:
            continue
        ours = left.name.startswith(f"{_DRAFT}{key}-")
        if ours and not fresh and _has_checkpoint(left):
            _clear(left)
            return left, lock
        if ours or not _has_checkpoint(left):
            shutil.rmtree(left, ignore_errors=True)
        else:
            others += 1
        os.close(lock)
    if others:
        console.say(
            f"note: {parent} holds {others} unfinished of other settings or data ({_DRAFT}*); remove what is not needed"
        )
    folder = parent / f"{_DRAFT}{key}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _has_checkpoint(folder: Path) -> bool:
    return (folder / CHECKPOINT / STATE).is_file()


def _locked(folder: Path) -> int | None:
    """Locks a draft, unless it is another's: in training, or made or published this very moment."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / _LOCK).exists():
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None


def _clear(folder: Path) -> None:
    """Removes what an earlier process wrote after its last checkpoint; it will be written again."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in _KEPT_IN_DRAFTS:
            shutil.rmtree(entry)
        elif entry.name not in _KEPT_IN_DRAFTS:
            entry.unlink()


def _left(folder: Path, *, keep: bool) -> None:
    if keep:
        console.say(f"what is trained so far is kept in {folder}; the same command continues, --fresh starts over")
        return
    shutil.rmtree(folder, ignore_errors=True)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _tidy(run: Path) -> None:
    """Removes what only a draft needs; after the rename, so that no moment is without either."""
    if run.is_dir():
        shutil.rmtree(run / CHECKPOINT, ignore_errors=True)
        (run / _LOCK).unlink(missing_ok=True)


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
