"""Who asks, and what they may do.

    credentials ─┬─ seen lately? ──────────────────────────▶ Caller: name, scopes, expiry
                 ├─ a key (`auth_keys`): hash, compare ────▶
                 └─ a token (`auth_tokens`): signature, … ─▶

A caller is remembered for a minute at most, so that a stream of requests pays for one check; keys and certificates that
change make all of them forgotten. No transport is known here: what is asked for is a scope.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, get_args

from server.errors import PermissionDenied, Unauthenticated

Scope = Literal["predict", "feedback", "admin", "metrics"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
REMEMBER_S: Final = 60.0
MAX_REMEMBERED: Final = 4096
KEY_PREFIX: Final = "shoal_"  # of every API key, so that one is told from a token, and found where it has leaked
BEARER: Final = "bearer"

# Who asked for what is being done now; empty where nobody was asked who they are.
caller_name: ContextVar[str] = ContextVar("caller_name", default="")


class Credentials(NamedTuple):
    """What a request brings to say who sends it.

    Args:
        authorization: The header or metadata `Authorization`, or None.
        api_key: The header or metadata `X-API-Key`, or None.
    """

    authorization: str | None = None
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is known.

    Args:
        name: `key:NAME`, `token:SUBJECT` or `address:ADDRESS`.
        scopes: What they may do.
        expires_s: When what they showed ends, in seconds of Unix time; infinite where it does not.
    """

    name: str
    scopes: frozenset[str]
    expires_s: float = float("inf")


class KeyChecker(Protocol):
    """Knows API keys."""

    def check(self, key: str) -> Caller | None:
        """Whose key it is, or None where it is nobody's."""
        ...  # pragma: no cover


class TokenChecker(Protocol):
    """Knows tokens."""

    async def check(self, token: str) -> Caller:
        """Whose token it is.

        Raises:
            Unauthenticated: It is not valid.
        """
        ...  # pragma: no cover


class Authenticator:
    """Finds out who asks.

    Args:
        keys: Knows API keys; None where there are none.
        tokens: Knows tokens; None where none are taken.
        clock: Seconds of Unix time.
    """

    def __init__(
        self, keys: KeyChecker | None, tokens: TokenChecker | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._clock = clock
        self._remembered: dict[Credentials, tuple[float, Caller]] = {}

    def known(self, credentials: Credentials) -> Caller | None:
        """Who showed these credentials in the last minute, or None where they have to be checked.

        Args:
            credentials: What the request brings.
        """
        found = self._remembered.get(credentials)
        if found is None:
            return None
        until_s, caller = found
        if self._clock() < until_s:
            return caller
        self._remembered.pop(credentials, None)
        return None

    async def identify(self, credentials: Credentials) -> Caller:
        """Who shows these credentials.

        Args:
            credentials: What the request brings.

        Raises:
            Unauthenticated: They are missing, wrong, or not valid now.
            Unavailable: They cannot be checked, because no signing key could be fetched yet.
        """
        known = self.known(credentials)
        if known is not None:
            return known
        caller = await self._check(credentials)
        self._remember(credentials, caller)
        return caller

    def forget(self) -> None:
        """Has everybody checked again at their next request."""
        self._remembered.clear()

    async def _check(self, credentials: Credentials) -> Caller:
        key, token = self._split(credentials)
        if key is not None:
            caller = self._keys.check(key) if self._keys is not None else None
            if caller is None:
                raise Unauthenticated("expected an API key of this server, received another; ask whoever runs it")
            return caller
        if self._tokens is None or token is None:
            raise Unauthenticated("expected an API key, received something else")
        return await self._tokens.check(token)

    def _split(self, credentials: Credentials) -> tuple[str | None, str | None]:
        """The key or the token that was brought: one of them."""
        authorization, key = credentials
        if key is not None and authorization is not None:
            raise Unauthenticated("expected Authorization or X-API-Key, received both")
        if key is not None:
            return key, None
        if authorization is None:
            raise Unauthenticated(f"expected {self._wanted()}, received neither", missing=True)
        scheme, _, value = authorization.partition(" ")
        value = value.strip()
        if scheme.lower() != BEARER or not value:
            raise Unauthenticated("expected `Authorization: Bearer …`, received another form of it")
        return (value, None) if value.startswith(KEY_PREFIX) else (None, value)

    def _wanted(self) -> str:
        if self._tokens is None:
            return "`X-API-Key: …` or `Authorization: Bearer …` with an API key"
        return "`Authorization: Bearer …` with a token" + ("" if self._keys is None else ", or `X-API-Key: …`")

    def _remember(self, credentials: Credentials, caller: Caller) -> None:
        while len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        until_s = min(self._clock() + REMEMBER_S, caller.expires_s)
        self._remembered[credentials] = until_s, caller


def require(caller: Caller, scope: Scope) -> None:
    """Lets a caller do something.

    Args:
        caller: Who asks.
        scope: What it takes.

    Raises:
        PermissionDenied: They may not.
    """
    if scope not in caller.scopes:
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise PermissionDenied(f"expected the scope '{scope}', received {has}")
