"""Old versions go; what may still be asked for stays.

    keep: the newest N · what the policy names · what answers now · what a rollback returns to · the highest number

A version is renamed to a hidden name before it is deleted, so a server sees it whole or not at all. The highest number
is never deleted: the next export counts from it, and a number that has been seen must never mean another model.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.errors import ExportError
from export.files import fsync_folder
from export.policy import default_version, named_versions, read_history, read_policy
from export.promotion import rollback_target

DELETED: Final = ".deleted-"


@dataclass(frozen=True, slots=True)
class Sorted:
    """What stays and what goes.

    Args:
        kept: Version → why it stays.
        spare: Versions that go, oldest first.
    """

    kept: dict[int, str]
    spare: list[int]


def sort_versions(folder: Path, known: list[int], keep: int) -> Sorted:
    """Decides. Writes nothing.

    Args:
        folder: `models/<name>`.
        known: Versions on disk, oldest first, at least one.
        keep: How many of the newest stay in any case, at least 1.
    """
    policy = read_policy(folder)
    reasons = dict.fromkeys(known[-keep:], f"one of the newest {keep}")
    reasons |= dict.fromkeys(sorted(_returned_to(folder, known)), "a rollback returns to it")
    reasons |= dict.fromkeys(sorted(named_versions(policy)), "named in the policy")
    reasons[default_version(policy, known)] = "it answers now"
    kept = {version: reasons[version] for version in known if version in reasons}
    return Sorted(kept, [version for version in known if version not in kept])


def collect(folder: Path, versions: list[int]) -> int:
    """Deletes versions, and what an interrupted deletion left.

    Args:
        folder: `models/<name>`; the caller holds its lock.
        versions: Which.

    Returns:
        How many bytes were freed.
    """
    for version in versions:
        (folder / str(version)).rename(folder / f"{DELETED}{version}")
    fsync_folder(folder)
    left = sorted(folder.glob(f"{DELETED}*"))
    freed_bytes = sum(size_bytes(path) for path in left)
    for path in left:
        shutil.rmtree(path)
    return freed_bytes


def size_bytes(folder: Path) -> int:
    """The size of all files of a bundle.

    Args:
        folder: `models/<name>/<version>`.
    """
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _returned_to(folder: Path, known: list[int]) -> set[int]:
    history = read_history(folder)
    named = named_versions(history[-1].before) | {history[-1].previous} if history else set()
    try:
        return named | named_versions(rollback_target(folder, known)[0])
    except ExportError:  # nothing to return to
        return named
