"""Public keys of a token's issuer: a JSON Web Key Set (RFC 7517), from a file or by HTTPS.

    every `refresh_s` ────────────┐
    a token with an unknown key ──┴─▶ fetched, at most once in MIN_INTERVAL_S ──▶ the keys in force

A set that cannot be fetched, or is none, changes nothing: the keys in force stay, and the log says why.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from server.auth_tokens import SigningKey
from server.errors import StartupError
from server.secret_files import WatchedFiles, read_secret

FLAG: Final = "--jwks"
MIN_INTERVAL_S: Final = 10.0  # strangers make up key ids; each would cost a request to the issuer
FETCH_WITHIN_S: Final = 5.0
MAX_BYTES: Final = 1 << 18
MIN_RSA_BITS: Final = 2048
MAX_KEYS: Final = 64
_OK: Final = 200
_PRIVATE: Final = frozenset({"d", "p", "q", "k"})
# By key type and curve (RFC 7518, 6.1; RFC 8037): one algorithm each.
_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

log = structlog.get_logger()


class FileKeys:
    """A key set in a file, which is read again when it changes.

    Args:
        path: The file.

    Raises:
        StartupError: It cannot be read, or is no key set.
    """

    fetched = True

    def __init__(self, path: Path) -> None:
        self._file = WatchedFiles([path], lambda: read_key_set(read_secret(path, FLAG)), "JSON Web Key Set")

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The keys in force."""
        return self._file.value

    async def refetch(self) -> None:
        """Does nothing: `refresh` follows the file closely enough."""

    async def refresh(self) -> bool:
        """Reads the file again where it has changed, and returns whether its keys are new."""
        return self._file.refresh()


class RemoteKeys:
    """A key set that is fetched.

    Args:
        url: Where from.
        refresh_s: How old it may become before it is fetched again, in seconds.
        fetch: Fetches it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        refresh_s: float,
        fetch: "Callable[[str], Awaitable[bytes]] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._refresh_s = refresh_s
        self._fetch = fetch or fetch_key_set
        self._clock = clock
        self._lock = asyncio.Lock()
        self._tried_s = float("-inf")
        self.keys: tuple[SigningKey, ...] = ()
        self.fetched = False
        self._changes = self._told = 0

    async def refetch(self) -> None:
        """Fetches the keys, unless that was tried a moment ago; whoever comes meanwhile waits for that one try."""
        await self._fetch_after(MIN_INTERVAL_S)

    async def refresh(self) -> bool:
        """Fetches keys that have grown old, and returns whether any have changed since this was last asked."""
        await self._fetch_after(self._refresh_s if self.fetched else MIN_INTERVAL_S)
        changed, self._told = self._told != self._changes, self._changes
        return changed

    async def _fetch_after(self, wait_s: float) -> None:
        async with self._lock:
            if self._clock() - self._tried_s >= wait_s:
                self._tried_s = self._clock()
                await self._replace()

    async def _replace(self) -> None:
        try:
            keys = read_key_set(await self._fetch(self._url))
        except (aiohttp.ClientError, TimeoutError, OSError, StartupError) as error:
            log.error("no new signing keys", url=self._url, reason=str(error) or type(error).__name__)  # noqa: TRY400
            return
        if [_spell(key) for key in keys] != [_spell(key) for key in self.keys]:
            self._changes += 1
            log.info("signing keys", url=self._url, ids=[key.id for key in keys])
        self.keys, self.fetched = keys, True


def open_key_set(place: str, refresh_s: float) -> FileKeys | RemoteKeys:
    """A key set that follows its source.

    Args:
        place: A file or a URL.
        refresh_s: How old a fetched one may become, in seconds.

    Raises:
        StartupError: The URL is not safe, or the file is no key set.
    """
    if "://" not in place:
        return FileKeys(Path(place))
    url = urlsplit(place)
    if url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK):
        return RemoteKeys(place, refresh_s)
    raise StartupError(f"{FLAG}: expected a file or a URL that begins with https://, received {place}")


def read_key_set(document: bytes) -> tuple[SigningKey, ...]:
    """The usable keys of a set. Others are passed over, as RFC 7517 (5) has it.

    Args:
        document: Its JSON.

    Raises:
        StartupError: It is no key set, has no usable key, or has a secret one.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f'{FLAG}: expected a JSON Web Key Set, {{"keys": […]}}, received something else') from error
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise StartupError(f"{FLAG}: expected a list of at most {MAX_KEYS} keys, received another")
    if any(isinstance(entry, dict) and entry.keys() & _PRIVATE for entry in entries):
        raise StartupError(
            f"{FLAG}: expected public keys alone, received a private or shared one; take it out of there"
        )
    keys = tuple(key for entry in entries if (key := _read_key(entry)) is not None)
    if not keys:
        wanted = ", ".join(_ALGORITHMS.values())
        raise StartupError(f"{FLAG}: expected a key for {wanted}, received none that can be used")
    return keys


async def fetch_key_set(url: str) -> bytes:
    """Fetches a key set. Redirections are not followed: they could lead from HTTPS to HTTP.

    Args:
        url: Where from.

    Raises:
        aiohttp.ClientError: It cannot be fetched.
        TimeoutError: It takes too long.
        StartupError: It is refused, or too large.
    """
    timeout = aiohttp.ClientTimeout(total=FETCH_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as response:
        if response.status != _OK:
            raise StartupError(f"{FLAG}: expected status 200 of {url}, received {response.status}")
        body = bytearray()
        async for part in response.content.iter_chunked(1 << 16):
            body += part
            if len(body) > MAX_BYTES:
                raise StartupError(f"{FLAG}: expected at most {MAX_BYTES:,} bytes of {url}, received more")
        return bytes(body)


def _read_key(entry: Any) -> SigningKey | None:
    if not isinstance(entry, dict):
        return None
    algorithm = _ALGORITHMS.get((str(entry.get("kty")), entry.get("crv")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    key_id = entry.get("kid")
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except jwt.PyJWTError as error:
        log.warning("a signing key cannot be read", id=key_id, reason=str(error))
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        log.warning("a signing key is too short", id=key_id, bits=key.key_size, at_least=MIN_RSA_BITS)
        return None
    return SigningKey(key_id if isinstance(key_id, str) else None, algorithm, key)


def _spell(key: SigningKey) -> tuple[str | None, str, int]:
    numbers = key.key.public_numbers() if hasattr(key.key, "public_numbers") else key.key.public_bytes_raw()
    return key.id, key.algorithm, hash(numbers)
