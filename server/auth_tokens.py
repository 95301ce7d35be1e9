"""JSON Web Tokens (RFC 7519): whose signature, for whom, for how long, and for what.

    token ──header──▶ keys of that algorithm and id ──▶ signature ──▶ exp, nbf, iat, aud, iss ──▶ jti ──▶ Caller

An algorithm is a property of a key, fixed when the key is read (RFC 8725, 3.1): what a token says only
chooses among the keys. So `none` finds no key, and HS256 finds shared secrets alone, never the bytes of a public key.
"""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import jwt
from jwt.types import Options

from server.auth import SCOPES, Caller
from server.errors import StartupError, Unauthenticated, Unavailable
from server.secret_files import WatchedFiles, read_secret

FLAG: Final = "--jwt-key-file"
REVOKED_FLAG: Final = "--jwt-revoked"
SHARED: Final = "HS256"
MIN_SECRET_BYTES: Final = 32  # RFC 7518, 3.2: as long as the hash
MAX_NAME: Final = 128
_UNSAFE: Final = re.compile(r"[^ -~]")


class SigningKey(NamedTuple):
    """What a signature is checked with.

    Args:
        id: Its `kid`, or None.
        algorithm: The one algorithm that it is for.
        key: As PyJWT takes it.
    """

    id: str | None
    algorithm: str
    key: Any


class KeySource(Protocol):
    """Public keys that may change."""

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The keys as they are known now."""
        ...  # pragma: no cover

    @property
    def fetched(self) -> bool:
        """Whether they have been read once."""
        ...  # pragma: no cover

    async def refetch(self) -> None:
        """Looks for new keys, unless that was done a moment ago."""
        ...  # pragma: no cover


class Secrets:
    """Shared secrets of a file, one a line, which is read again when it changes.

    Args:
        path: The file.

    Raises:
        StartupError: It cannot be read, holds none, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFiles([path], lambda: read_secrets(path), "JWT secrets")

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The secrets in force."""
        return self._file.value

    def refresh(self) -> bool:
        """Reads the file again where it has changed, and returns whether its secrets are new."""
        return self._file.refresh()


class Revoked:
    """Tokens that were taken back: a file of their `jti`, one a line, which is read again when it changes.

    Args:
        path: The file. Lines that begin with # say something to people.

    Raises:
        StartupError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFiles([path], lambda: read_revoked(path), "tokens taken back")

    def __contains__(self, token_id: object) -> bool:
        """Whether the token of this `jti` was taken back."""
        return token_id in self._file.value

    def refresh(self) -> bool:
        """Reads the file again where it has changed, and returns whether what it lists is new."""
        return self._file.refresh()


class Tokens:
    """Checks tokens.

    Args:
        secrets: Shared secrets, for HS256; None for none.
        public: Public keys, for all other algorithms; None for none.
        revoked: Single tokens that were taken back; None for none. Where there are some, every token needs a `jti`: one
            without could never be taken back.
        issuer: What `iss` has to be; empty for anything.
        audience: What `aud` has to be or to have; empty for anything.
        leeway_s: By how much the clocks of an issuer and of this machine may differ.
    """

    def __init__(
        self,
        secrets: Secrets | None,
        public: KeySource | None,
        revoked: Revoked | None = None,
        *,
        issuer: str,
        audience: str,
        leeway_s: float,
    ) -> None:
        self._secrets = secrets
        self._public = public
        self._revoked = revoked
        self._issuer = issuer or None
        self._audience = audience or None
        self._leeway_s = leeway_s
        required = ["exp", *(["iss"] if issuer else []), *(["aud"] if audience else [])]
        required += [] if revoked is None else ["jti"]
        self._options: Options = {"require": required, "verify_aud": bool(audience), "verify_iss": bool(issuer)}

    async def check(self, token: str) -> Caller:
        """Whose token it is.

        Args:
            token: In its compact form.

        Raises:
            Unauthenticated: It is not valid.
            Unavailable: No public key could be fetched yet.
        """
        algorithm, key_id = _read_header(token)
        keys = self._fitting(algorithm, key_id)
        if not keys and self._public is not None and algorithm != SHARED:
            await self._public.refetch()
            keys = self._fitting(algorithm, key_id)
            if not self._public.fetched:
                raise Unavailable("the keys that tokens are checked with could not be fetched yet; try again")
        if not keys:
            raise Unauthenticated("expected a token signed with a key that is known here, received one of another key")
        return self._decode(token, keys)

    def _fitting(self, algorithm: str, key_id: str | None) -> list[SigningKey]:
        shared = self._secrets.keys if self._secrets is not None else ()
        public = self._public.keys if self._public is not None else ()
        return [
            key
            for key in (*shared, *public)
            if key.algorithm == algorithm and (key_id is None or key.id is None or key.id == key_id)
        ]

    def _decode(self, token: str, keys: list[SigningKey]) -> Caller:
        for key in keys:
            try:
                claims = jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway_s,
                    options=self._options,
                )
            except jwt.InvalidSignatureError:
                continue  # one without an id may be by any key
            except jwt.InvalidTokenError as error:
                raise Unauthenticated(_spell(error)) from None
            return self._caller(claims)
        raise Unauthenticated("expected a token with a right signature, received one with a wrong one")

    def _caller(self, claims: dict[str, Any]) -> Caller:
        if self._revoked is not None and claims["jti"] in self._revoked:
            raise Unauthenticated("expected a token that is in force, received one that was taken back; get a new one")
        subject = _UNSAFE.sub("?", str(claims.get("sub", "")))[:MAX_NAME]
        return Caller(f"token:{subject}", _read_scopes(claims), float(claims["exp"]) + self._leeway_s)


def read_secrets(path: Path) -> tuple[SigningKey, ...]:
    """Reads shared secrets, one a line: several while a new one takes over from an old one.

    Args:
        path: The file.

    Raises:
        StartupError: It cannot be read, holds none, or holds something else. Its content is never quoted.
    """
    content = read_secret(path, FLAG)
    if b"-----BEGIN" in content:
        raise StartupError(f"{FLAG}: expected shared secrets in {path}, received a PEM file; see --jwks")
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    short = [number for number, line in enumerate(lines, start=1) if len(line) < MIN_SECRET_BYTES]
    if short or not lines:
        raise StartupError(
            f"{FLAG}: expected secrets of {MIN_SECRET_BYTES} bytes or more in {path}, one a line, received"
            f" {f'a shorter one as number {short[0]}' if short else 'none'}; `openssl rand -hex 32` makes one"
        )
    return tuple(SigningKey(None, SHARED, line) for line in lines)


def read_revoked(path: Path) -> frozenset[str]:
    """Reads the `jti` of tokens that were taken back, one a line.

    Args:
        path: The file.

    Raises:
        StartupError: It cannot be read.
    """
    lines = read_secret(path, REVOKED_FLAG).decode("utf-8", "replace").splitlines()
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _read_header(token: str) -> tuple[str, str | None]:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, UnicodeError, RecursionError):  # bytes that are no text, lists within lists …
        raise Unauthenticated("expected a JSON Web Token, received something else") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    return (algorithm if isinstance(algorithm, str) else ""), (key_id if isinstance(key_id, str) else None)


def _read_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes of `scope` (RFC 8693: one text, blanks between) and `scp` (some issuers: the same, or a list)."""
    granted: set[str] = set()
    for claim in ("scope", "scp"):
        value = claims.get(claim, ())
        words = value.split() if isinstance(value, str) else value
        if isinstance(words, (list, tuple)):
            granted.update(word for word in words if isinstance(word, str))
    return frozenset(granted & set(SCOPES))


def _spell(error: jwt.InvalidTokenError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "expected a token that is still valid, received one that has expired; get a new one"
        case jwt.ImmatureSignatureError():
            return "expected a token that is valid already, received one whose time has not come"
        case jwt.InvalidAudienceError():
            return "expected a token for this server, received one for another audience"
        case jwt.InvalidIssuerError():
            return "expected a token of this server's issuer, received one of another"
        case jwt.MissingRequiredClaimError():
            return f"expected a token with {error.claim}, received one without"
        case _:
            return "expected a well-formed token, received another"
