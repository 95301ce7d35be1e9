"""Bundles on disk: one writer at a time, and nothing half-written is ever seen.

    models/
        .<name>.lock                 held for a whole export; a second one waits
        <name>/.partial-<version>    being written: the name begins with a dot, so the server does not look
        <name>/<version>/            complete: every file fsynced, then renamed, then the parent fsynced

Versions are integers. The next one is one more than the largest that is there, so retraining never overwrites.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from export.errors import ExportError
from export.files import fsync_folder, naming
from protos import bundle_pb2

MANIFEST: Final = "manifest.json"
SBOM: Final = "sbom.cdx.json"
REPORT: Final = "export.json"
GOLDEN: Final = "golden.npz"
PARTIAL: Final = ".partial-"


@dataclass(frozen=True, slots=True)
class Staging:
    """A bundle that is being written.

    Args:
        folder: The hidden folder.
        target: What it will be renamed to.
    """

    folder: Path
    target: Path

    @property
    def version(self) -> int:
        """The version it will have."""
        return int(self.target.name)

    def write(self, name: str, data: bytes) -> Path:
        """Writes one file and fsyncs it.

        Args:
            name: Inside the bundle.
            data: Its bytes.
        """
        path = self.folder / name
        with naming(path), path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return path

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Writes a JSON object.

        Args:
            name: Inside the bundle.
            value: What `json` can write; NaN is refused.
        """
        return self.write(name, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def write_npz(self, name: str, arrays: Mapping[str, NDArray[np.generic]]) -> Path:
        """Writes arrays.

        Args:
            name: Inside the bundle.
            arrays: By their name in the archive.
        """
        path = self.folder / name
        with naming(path), path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its flag
            file.flush()
            os.fsync(file.fileno())
        return path

    def publish(self) -> Path:
        """Makes the bundle visible, at once and for good.

        Returns:
            The bundle's folder.
        """
        fsync_folder(self.folder)
        self.folder.rename(self.target)
        fsync_folder(self.target.parent)
        return self.target


@contextlib.contextmanager
def exclusive(models: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Waits until no other export of this name runs, then holds the others off.

    Args:
        models: Folder of bundles, created when missing.
        name: The model's name.
        say: Told when there is something to wait for.
    """
    models.mkdir(parents=True, exist_ok=True)
    with (models / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another export of {name} is running; waiting for it to finish")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(models: Path, name: str, version: int | None = None) -> Iterator[Staging]:
    """Opens a hidden folder for a version; what is not published on leaving is removed.

    Call it inside `exclusive`: hidden folders that a crashed export left are removed, too.

    Args:
        models: Folder of bundles.
        name: The model's name.
        version: Its number, which is free; None for the next one.
    """
    parent = models / name
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{PARTIAL}*"):
        shutil.rmtree(left)
    if version is None:
        version = max(versions(models, name), default=0) + 1
    folder = parent / f"{PARTIAL}{version}"
    folder.mkdir()
    try:
        yield Staging(folder, parent / str(version))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: there are other versions
            parent.rmdir()


def versions(models: Path, name: str) -> list[int]:
    """Lists a model's versions, oldest first.

    Args:
        models: Folder of bundles.
        name: The model's name.
    """
    folder = models / name
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def names(models: Path) -> list[str]:
    """Lists the models that have at least one version.

    Args:
        models: Folder of bundles.
    """
    if not models.is_dir():
        return []
    return sorted(path.name for path in models.iterdir() if versions(models, path.name))


def read_manifest(folder: Path) -> bundle_pb2.Manifest:
    """Reads a bundle's manifest.

    Args:
        folder: `models/<name>/<version>`.

    Raises:
        ExportError: There is none, or it is not one.
    """
    path = folder / MANIFEST
    try:
        return json_format.Parse(path.read_text("utf-8"), bundle_pb2.Manifest())
    except FileNotFoundError:
        raise ExportError(f"expected a bundle with a manifest, found no {path}") from None
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} is no manifest: {error}") from error


def read_report(folder: Path) -> dict[str, Any]:
    """Reads `export.json`, empty when the bundle has none.

    Args:
        folder: `models/<name>/<version>`.
    """
    path = folder / REPORT
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ExportError(f"{path} is no JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def manifest_json(manifest: bundle_pb2.Manifest) -> bytes:
    """Writes a manifest as the server reads it.

    Args:
        manifest: Complete.
    """
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, ensure_ascii=False)
    return (text + "\n").encode()


def sha256(path: Path) -> str:
    """Hashes a file's bytes as they are on disk now.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
