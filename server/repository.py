"""What lies in the models folder, and what should be done about it. Pure but for `scan`, which only reads.

    <models>/<name>/<version>/ ──scan──▶ ModelFolder ──version policy──▶ wanted versions ──next_step──▶ Load | Unload

A step is worked out from the present state alone, never from a history of events: a folder that came and went while
another model was loading leaves nothing behind.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from server.bundle import MANIFEST_FILE, PLAIN_FILE
from server.errors import StartupError
from server.signatures import SIGNATURE_FILE

POLICY_FILE: Final = "policy.json"
POLICY_BYTES: Final = 65_536  # a policy is some hundred bytes; more is something else

# As Triton has it: a name with a leading zero is no version. 18 digits fit every protocol's 64-bit field.
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")

_STAMPED: Final = (".onnx", MANIFEST_FILE, SIGNATURE_FILE)

Stamp = tuple[tuple[str, int, int, int], ...]  # (file, inode, size, mtime in ns) of manifest, signature and graphs


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model's folder at one moment.

    Args:
        name: Its name, which is the model's.
        versions: Version → stamp. The stamp changes when a manifest or graph in it does.
        policy: What the traffic policy's file holds, or None where there is none.
    """

    name: str
    versions: Mapping[int, Stamp]
    policy: bytes | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """The models folder at one moment.

    Args:
        models: Model folders by name.
        problems: Name → why its folder could not be read; its last known state stands in `models`.
    """

    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which of the versions on disk are loaded, beside those that a traffic policy names.

    Args:
        latest: The N highest numbers; None where `listed` says it, or for all of them.
        listed: Exactly these.
    """

    latest: int | None = 1
    listed: frozenset[int] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "latest", "latest:3", "all", or numbers such as "1,4".

        Raises:
            StartupError: It is none of these.
        """
        word, _, count = text.strip().partition(":")
        if word == "all" and not count:
            return cls(latest=None)
        if word == "latest" and (not count or _VERSION.fullmatch(count)):
            return cls(latest=int(count or 1))
        numbers = [part.strip() for part in text.split(",")]
        if all(_VERSION.fullmatch(number) for number in numbers):
            return cls(latest=None, listed=frozenset(map(int, numbers)))
        raise StartupError(f"expected 'latest', 'latest:<count>', 'all' or versions such as '1,4', received '{text}'")

    def pick(self, versions: Iterable[int]) -> frozenset[int]:
        """The versions to load, of those that could be."""
        if self.listed is not None:
            return self.listed.intersection(versions)
        return frozenset(sorted(versions, reverse=True)[: self.latest])

    def __str__(self) -> str:
        if self.listed is not None:
            return ",".join(map(str, sorted(self.listed)))
        return "all" if self.latest is None else f"latest:{self.latest}"


@dataclass(frozen=True, slots=True)
class Load:
    """Bring this version up, in place of an older state of it where there is one."""

    version: int
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Unload:
    """Let this version go."""

    version: int


Step = Load | Unload


def scan(folder: Path, previous: Scan | None = None) -> Scan:
    """Looks at the models folder. Blocks, so it runs in a thread; it writes nothing.

    Hidden folders, files, version names that are no whole number above 0, and versions with neither a manifest nor a
    `model.onnx` (half-written ones) are passed over.

    Args:
        folder: The models folder.
        previous: The scan before, whose state stands for a model folder that cannot be read now.

    Returns:
        What is there.

    Raises:
        OSError: The models folder itself cannot be read.
    """
    models: dict[str, ModelFolder] = {}
    problems: dict[str, str] = {}
    for name in sorted(_folders(folder)):
        try:
            models[name] = _scan_model(folder / name, name)
        except FileNotFoundError:
            continue  # it went away while we looked
        except OSError as error:
            problems[name] = f"{folder / name} cannot be read: {error.strerror}"
            if previous and name in previous.models:
                models[name] = previous.models[name]
    return Scan(models, problems)


def settle(now: Scan, before: Scan, settled: Scan) -> Scan:
    """Believes a version only once two scans in a row have seen it the same, so that a plain copy can finish.

    Export renames finished folders into place, but `cp -r` and rsync do not.

    Args:
        now: This scan.
        before: The scan before it.
        settled: What was believed so far.

    Returns:
        What to believe now: a version that is changing keeps the stamp it was last believed with, or is not there yet.
    """
    models = {
        name: _settle(model, before.models.get(name), settled.models.get(name)) for name, model in now.models.items()
    }
    return Scan(models, now.problems)


def next_step(
    available: Mapping[int, Stamp],
    loaded: Mapping[int, Stamp],
    wanted: Collection[int],
    rejected: Mapping[int, Stamp],
    *,
    present: bool = True,
) -> Step | None:
    """The one next thing to do for one model.

    Args:
        available: Version → stamp on disk.
        loaded: Version → stamp it was loaded from.
        wanted: Versions that should be loaded.
        rejected: Version → stamp that failed, or was rolled back; not tried again until the stamp changes.
        present: Whether the model's folder is there at all.

    Returns:
        A load, newest first; once nothing is left to load, the unload of what is wanted no more; None when all is as it
        should be. A model whose folder is there never loses its last version.
    """
    if not present:
        return Unload(min(loaded)) if loaded else None
    for version in sorted(wanted, reverse=True):
        stamp = available.get(version)
        if stamp is not None and stamp not in (loaded.get(version), rejected.get(version)):
            return Load(version, stamp)
    spare = sorted(loaded.keys() - set(wanted))
    return Unload(spare[0]) if spare and loaded.keys() & set(wanted) else None


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


def _scan_model(folder: Path, name: str) -> ModelFolder:
    stamps = {int(number): _stamp(folder / number) for number in _folders(folder) if _VERSION.fullmatch(number)}
    versions = {version: stamp for version, stamp in stamps.items() if stamp}
    return ModelFolder(name, versions, _policy(folder / POLICY_FILE))


def _stamp(folder: Path) -> Stamp:
    try:
        with os.scandir(folder) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(_STAMPED)]
    except FileNotFoundError:
        return ()
    if not {MANIFEST_FILE, PLAIN_FILE}.intersection(name for name, _ in files):
        return ()
    return tuple(sorted((name, status.st_ino, status.st_size, status.st_mtime_ns) for name, status in files))


def _policy(path: Path) -> bytes | None:
    try:
        with path.open("rb") as opened:
            return opened.read(POLICY_BYTES + 1)
    except FileNotFoundError:
        return None


def _settle(now: ModelFolder, before: ModelFolder | None, settled: ModelFolder | None) -> ModelFolder:
    seen = before.versions if before else {}
    believed = dict(settled.versions) if settled else {}
    believed |= {version: stamp for version, stamp in now.versions.items() if seen.get(version) == stamp}
    return ModelFolder(
        now.name, {version: believed[version] for version in now.versions if version in believed}, now.policy
    )
