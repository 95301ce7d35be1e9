"""Is a bundle on disk what its manifest says? Asked before a version is promoted, copied, signed or kept.

manifest ──▶ each file it names: there? size? sha256? ──▶ signature, where keys are given ──▶ Manifest
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from export import bundle
from export.errors import ExportError
from protos import bundle_pb2
from server.errors import BundleError
from server.signatures import check_signature


class Listed(NamedTuple):
    """A file that a manifest vouches for.

    Args:
        file: Its name inside the bundle.
        sha256: In hexadecimal.
        size_bytes: None where the manifest does not say.
    """

    file: str
    sha256: str
    size_bytes: int | None


def listed_files(manifest: bundle_pb2.Manifest) -> list[Listed]:
    """Lists what a manifest vouches for.

    Args:
        manifest: A bundle's.

    Raises:
        ExportError: A name would lead out of the bundle.
    """
    listed = [Listed(one.file, one.sha256, one.size_bytes) for one in manifest.variants]
    asides = (manifest.explanation.graph, manifest.sbom)
    listed += [Listed(one.file, one.sha256, one.size_bytes) for one in asides if one.file]
    if manifest.golden.file:
        listed.append(Listed(manifest.golden.file, manifest.golden.sha256, None))
    for one in listed:
        if Path(one.file).name != one.file:
            raise ExportError(f"expected the manifest to name files inside the bundle, received {one.file!r}")
    return listed


def check_bundle(folder: Path, trusted_keys: Path | None = None) -> bundle_pb2.Manifest:
    """Checks every file of a bundle.

    Args:
        folder: `models/<name>/<version>`, or any other place where one lies.
        trusted_keys: Public keys, one of which must have signed the manifest; None to ask for no signature.

    Returns:
        Its manifest.

    Raises:
        ExportError: A file is missing or is not the one that was verified, or the signature is not as asked.
    """
    manifest = bundle.read_manifest(folder)
    if not manifest.variants:
        raise ExportError(f"expected at least one variant in {folder / bundle.MANIFEST}, found none; export again")
    if trusted_keys is not None:
        try:
            check_signature(folder, (folder / bundle.MANIFEST).read_bytes(), trusted_keys)
        except BundleError as error:
            raise ExportError(str(error)) from error
    check_files(folder, listed_files(manifest))
    return manifest


def check_files(folder: Path, listed: Iterable[Listed]) -> None:
    """Compares files with what a manifest says of them.

    Raises:
        ExportError: One is missing, or has another size or hash.
    """
    for one in listed:
        path = folder / one.file
        if not path.is_file():
            raise ExportError(f"expected {path}, which the manifest names, found none; copy or export the bundle again")
        if one.size_bytes is not None and path.stat().st_size != one.size_bytes:
            raise ExportError(
                f"expected {one.size_bytes:,} bytes in {path}, found {path.stat().st_size:,};"
                " copy or export the bundle again"
            )
        digest = bundle.sha256(path)
        if digest != one.sha256:
            raise ExportError(
                f"expected sha256 {one.sha256} of {path}, found {digest}: it is not the file that was verified;"
                " copy or export the bundle again"
            )
