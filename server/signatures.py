"""Whether a manifest was signed by somebody who is trusted: Ed25519 (RFC 8032) over the bytes of `manifest.json`.

The manifest holds the sha256 of every other file, so its signature covers the bundle. `manifest.sig` is the bare
64 bytes, which other tools can check too:

    openssl pkeyutl -verify -pubin -inkey release.key.pub -rawin -in manifest.json -sigfile manifest.sig

Several keys may be trusted at the same time, so that a new one can take over from an old one.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_FILE: Final = "manifest.sig"
_KEY_FILES: Final = (".pub", ".pem")
_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def read_public_keys(path: Path) -> "tuple[Ed25519PublicKey, ...]":
    """Reads the keys that are trusted.

    Args:
        path: A PEM file of one key or several, or a folder of files `*.pub` and `*.pem`.

    Raises:
        BundleError: The path cannot be read, holds no key, or holds one of another kind.
    """
    try:
        keys = tuple(key for file in _key_files(path) for key in _keys_of(file))
    except OSError as error:
        raise BundleError(
            f"expected a public key or a folder of them at {path}, it cannot be read: {error.strerror};"
            " make a pair: python -m export keygen"
        ) from error
    if not keys:
        raise BundleError(
            f"expected a PEM public key in {path}, found none; the file `….pub` of python -m export keygen is one"
        )
    return keys


def check_signature(folder: Path, manifest: bytes, trusted_keys: Path) -> None:
    """Checks that one of the trusted keys has signed a manifest.

    Args:
        folder: The bundle's.
        manifest: The bytes that will be believed.
        trusted_keys: As for `read_public_keys`; read anew each time, so a key can be added while the server runs.

    Raises:
        BundleError: There is no signature, or none of the keys has made it over these bytes.
    """
    keys = read_public_keys(trusted_keys)
    path = folder / SIGNATURE_FILE
    try:
        signature = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"expected a signed bundle, {path} cannot be read: {error.strerror};"
            f" sign it: python -m export sign {folder.parent.name} --version {folder.name} --key FILE"
        ) from error
    if not any(_made_by(key, signature, manifest) for key in keys):
        raise BundleError(
            f"expected {path} to be a signature of this manifest by one of the {len(keys)} trusted keys, it is not:"
            " the manifest was changed, or somebody else has signed it"
        )


def _key_files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return (path,)
    return sorted(file for file in path.iterdir() if file.suffix in _KEY_FILES and not file.name.startswith("."))


def _keys_of(file: Path) -> "Iterable[Ed25519PublicKey]":
    # Only a server that asks for signatures needs the package.
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    for block in _PEM.findall(file.read_bytes()):
        try:
            key = serialization.load_pem_public_key(block)
        except ValueError as error:
            raise BundleError(f"{file} holds a public key that cannot be read: {error}; make a new pair") from error
        if not isinstance(key, Ed25519PublicKey):
            raise BundleError(f"expected Ed25519 public keys in {file}, received {type(key).__name__}")
        yield key


def _made_by(key: "Ed25519PublicKey", signature: bytes, manifest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True
