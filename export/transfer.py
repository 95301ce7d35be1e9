"""Bundles to and from other places, by URL: whatever `fsspec` opens (a path, file://, memory://, s3:// with s3fs, …).

    models/digits/3 ──check──▶ push ──files, then manifest.json last──▶ <url>/digits/3
    <url>/digits/3 ──manifest, signature, hashes──▶ pull ──rename──▶ models/digits/3

An object store has no rename, so `manifest.json` goes last: a bundle without it is not there yet. Nothing is ever
overwritten.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from export import bundle
from export.check import check_bundle, listed_files
from export.errors import ExportError
from export.settings import NAME_PATTERN
from server.signatures import SIGNATURE_FILE

_ASIDE: Final = (
    bundle.REPORT,
    SIGNATURE_FILE,
)  # the manifest cannot name these: it is hashed into one, and has no other

Say = Callable[[str], None]


def push(folder: Path, url: str, trusted_keys: Path | None = None) -> str:
    """Copies a bundle.

    Args:
        folder: `models/<name>/<version>`.
        url: A folder of bundles elsewhere.
        trusted_keys: Public keys, one of which must have signed the bundle; None to ask for no signature.

    Returns:
        Where it lies now.

    Raises:
        ExportError: The bundle is not sound, is there already, or the place cannot be written.
    """
    manifest = check_bundle(folder, trusted_keys)
    system, root = _open(url)
    target = f"{root.rstrip('/')}/{folder.parent.name}/{folder.name}"
    names = [one.file for one in listed_files(manifest)]
    names += [name for name in _ASIDE if (folder / name).exists()]
    try:
        if system.exists(f"{target}/{bundle.MANIFEST}"):
            raise ExportError(f"expected no bundle at {target}, there is one; versions are never overwritten")
        system.makedirs(target, exist_ok=True)
        for name in (*names, bundle.MANIFEST):
            system.put_file(str(folder / name), f"{target}/{name}")
    except OSError as error:
        raise _unreachable(target, error) from error
    return target


def pull(url: str, models: Path, trusted_keys: Path | None, say: Say) -> tuple[Path, bool]:
    """Fetches a bundle, checks it, and makes it visible under the name and number that it has there.

    Args:
        url: Of the bundle: `…/<name>/<version>`.
        models: Folder of bundles.
        trusted_keys: Public keys, one of which must have signed the bundle; None to ask for no signature.
        say: Told when there is something to wait for.

    Returns:
        The bundle's folder, and whether it was fetched: False where the same one was there already.

    Raises:
        ExportError: The place has no sound bundle, or another one is here under that number.
    """
    system, source = _open(url)
    name, version = _identity(source)
    content = _fetch(system, f"{source}/{bundle.MANIFEST}")
    with bundle.exclusive(models, name, say):
        target = models / name / str(version)
        if target.exists():
            here = target / bundle.MANIFEST
            if here.exists() and here.read_bytes() == content:
                return target, False
            raise ExportError(f"expected no other bundle at {target}, there is one; versions are never overwritten")
        with bundle.staging(models, name, version) as stage:
            stage.write(bundle.MANIFEST, content)
            for one in listed_files(bundle.read_manifest(stage.folder)):
                stage.write(one.file, _fetch(system, f"{source}/{one.file}"))
            for aside in _ASIDE:
                if system.exists(f"{source}/{aside}"):
                    stage.write(aside, _fetch(system, f"{source}/{aside}"))
            manifest = check_bundle(stage.folder, trusted_keys)
            if (manifest.name, manifest.version) != (name, version):
                raise ExportError(
                    f"expected {name} version {version} at {source}, its manifest says {manifest.name} version"
                    f" {manifest.version}; a signed bundle keeps its own name and number"
                )
            return stage.publish(), True


def _identity(source: str) -> tuple[str, int]:
    name, version = (["", *source.rstrip("/").split("/")])[-2:]
    if not re.match(NAME_PATTERN, name) or not version.isdecimal():
        raise ExportError(f"expected a URL that ends in NAME/VERSION, such as …/digits/3, received {source!r}")
    return name, int(version)


def _open(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # noqa: PLC0415 - only these two commands need it

    try:
        system, path = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ExportError(f"expected a path or a URL that fsspec can open, received {url!r}: {error}") from error
    return system, str(path).rstrip("/")


def _fetch(system: Any, path: str) -> bytes:
    try:
        content: bytes = system.cat_file(path)
    except OSError as error:
        raise _unreachable(path, error) from error
    return content


def _unreachable(path: str, error: OSError) -> ExportError:
    if isinstance(error, FileNotFoundError):
        return ExportError(f"expected a bundle with a file {path}, found none; copy it there: python -m export copy")
    return ExportError(f"{path}: {error.strerror or error}")
