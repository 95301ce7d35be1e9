"""Keys and signatures: Ed25519 (RFC 8032) over the bytes of `manifest.json`, which has the hash of every other file.

keygen ──▶ release.key (PKCS #8, stays with whoever exports)
      └──▶ release.key.pub (goes to the servers: --trusted-keys)
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from export.bundle import MANIFEST
from export.errors import ExportError
from export.files import write_whole
from server.signatures import SIGNATURE_FILE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def generate_keys(path: Path) -> Path:
    """Writes a new pair of keys.

    Args:
        path: Of the private key, readable by its owner alone; an existing file is never overwritten.

    Returns:
        The public key's file, `<path>.pub`.

    Raises:
        ExportError: One of the two files is there already.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    public_path = path.with_name(f"{path.name}.pub")
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for file, content, mode in ((path, secret, 0o600), (public_path, public, 0o644)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise ExportError(f"expected no file at {file}, there is one; name another: keygen FILE") from None
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    return public_path


def read_private_key(path: Path) -> "Ed25519PrivateKey":
    """Reads a private key.

    Args:
        path: A file of `generate_keys`, or any PEM file of an unencrypted Ed25519 private key.

    Raises:
        ExportError: It is none.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    advice = "make one: python -m export keygen FILE"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ExportError(
            f"expected an unencrypted PEM private key in {path}, it cannot be read: {error}; {advice}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportError(f"expected an Ed25519 private key in {path}, received {type(key).__name__}; {advice}")
    return key


def sign(folder: Path, key: "Ed25519PrivateKey") -> Path:
    """Signs a bundle's manifest as it is on disk now.

    Args:
        folder: `models/<name>/<version>`, or the hidden folder that will become it.
        key: The signer's.

    Returns:
        The signature's file, written or replaced in one step.
    """
    path = folder / SIGNATURE_FILE
    write_whole(path, key.sign((folder / MANIFEST).read_bytes()))
    return path
