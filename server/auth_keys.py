"""API keys: a file of their hashes, one line for each.

    NAME:sha256:HEX DIGITS:scope,scope          # lines that begin with # say something to people

A key is 256 random bits of `make_key`, so its plain SHA-256 is no help to whoever reads the file: there is nothing to
guess. A slow hash, which passwords need, would only let strangers burn the server's time.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from server.auth import KEY_PREFIX, SCOPES, Caller
from server.errors import StartupError
from server.secret_files import WatchedFiles, read_secret

FLAG: Final = "--api-keys"
KEY_BYTES: Final = 32
_LINE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._@-]{1,64}):sha256:(?P<digest>[0-9a-f]{64}):(?P<scopes>[a-z]+(?:,[a-z]+)*)"
)
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class StoredKey(NamedTuple):
    """What is kept of a key.

    Args:
        digest: Its SHA-256, 32 bytes.
        caller: Whose it is.
    """

    digest: bytes
    caller: Caller


class KeyFile:
    """The keys of a file, which is read again when it changes.

    Args:
        path: The file.

    Raises:
        StartupError: It cannot be read, or a line of it is no key.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFiles([path], lambda: read_keys(path), "API keys")

    def refresh(self) -> bool:
        """Reads the file again where it has changed, and returns whether its keys are new."""
        return self._file.refresh()

    def check(self, key: str) -> Caller | None:
        """Whose key it is, or None where it is nobody's.

        Every stored key is compared, in a time that does not depend on where they differ: neither how long this takes
        nor how many comparisons it makes tells whether a key is near one of them, or which one it is.

        Args:
            key: As it was sent.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = None
        for stored in self._file.value:
            if hmac.compare_digest(digest, stored.digest):
                found = stored.caller
        return found


def read_keys(path: Path) -> tuple[StoredKey, ...]:
    """Reads a file of keys.

    Args:
        path: The file.

    Raises:
        StartupError: It cannot be read, or a line of it is no key. Its content is never quoted.
    """
    keys: dict[str, StoredKey] = {}
    for number, line in enumerate(read_secret(path, FLAG).decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key = _read_line(text, f"{FLAG}: {path}, line {number}")
        if key.caller.name in keys:
            raise StartupError(f"{FLAG}: {path}, line {number}: expected each name once, received one again")
        keys[key.caller.name] = key
    return tuple(keys.values())


def make_key(name: str, scopes: Collection[str]) -> tuple[str, str]:
    """Makes a key.

    Args:
        name: Whose it is: 1 to 64 letters, digits or ._@-.
        scopes: What it allows.

    Returns:
        The key, to be kept by its owner alone, and the line for the server's file.

    Raises:
        StartupError: The name or a scope cannot be.
    """
    if not _NAME.fullmatch(name):
        raise StartupError(f"expected a name of 1 to 64 letters, digits or ._@-, received {name[:80]!r}")
    _check_scopes(scopes, "--scopes")
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}:{','.join(scopes)}"


def _read_line(text: str, where: str) -> StoredKey:
    found = _LINE.fullmatch(text)
    if found is None:
        raise StartupError(
            f"{where}: expected NAME:sha256:DIGEST:SCOPES, received something else;"
            " `python -m server keys new NAME --scopes predict` makes such a line"
        )
    scopes = found["scopes"].split(",")
    _check_scopes(scopes, where)
    return StoredKey(bytes.fromhex(found["digest"]), Caller(f"key:{found['name']}", frozenset(scopes)))


def _check_scopes(scopes: Collection[str], where: str) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise StartupError(
            f"{where}: expected scopes of {', '.join(SCOPES)}, received {unknown[0] if unknown else 'none'}"
        )
