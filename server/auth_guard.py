"""The one door that every transport's requests pass where something is asked of callers, or limited.

    credentials, address ──▶ Authenticator ──▶ scope? ──▶ Limits: rate, at a time ──▶ Caller
                             (401)             (403)      (429)
    the address is the peer's, or what a trusted proxy says

Where nothing is asked and nothing limited there is no guard, and nothing passes it.
"""

import time
from typing import Final

import structlog

from server.auth import SCOPES, Authenticator, Caller, Credentials, Scope, caller_name, require
from server.rate_limit import Limits
from server.trusted_proxies import TrustedProxies

SAY_EVERY_S: Final = 1.0  # strangers decide how often they are refused, not how fast the log grows
_EVERYTHING: Final = frozenset(SCOPES)

log = structlog.get_logger()


class Guard:
    """Lets requests in.

    Args:
        authenticator: Finds out who asks; None where everybody may do everything.
        limits: What each client has to keep to; None for no limits.
        proxies: Whose word on their clients' addresses counts; None for nobody's.
    """

    def __init__(
        self, authenticator: Authenticator | None, limits: Limits | None, proxies: TrustedProxies | None = None
    ) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._proxies = proxies
        self._said_s = float("-inf")
        self._unsaid = 0

    @property
    def asks(self) -> bool:
        """Whether callers have to say who they are."""
        return self._authenticator is not None

    def address_of(self, peer: str, forwarded: str) -> str:
        """Where a request comes from.

        Args:
            peer: The other end of its connection.
            forwarded: Its `X-Forwarded-For`, or "".
        """
        return peer if self._proxies is None else self._proxies.client_of(peer, forwarded)

    async def admit(self, credentials: Credentials, scope: Scope, address: str) -> Caller:
        """Finds out who asks, and whether they may.

        Args:
            credentials: What the request brings.
            scope: What it takes.
            address: Where it comes from.

        Raises:
            Unauthenticated: Nobody knows them.
            PermissionDenied: They are known, but may not.
            Unavailable: Nobody can tell yet.
        """
        if self._authenticator is None:
            return _of_address(address)
        caller = await self._authenticator.identify(credentials)
        require(caller, scope)
        return caller

    def known(self, credentials: Credentials, scope: Scope, address: str) -> Caller | None:
        """Who asks, where that takes no more than looking it up, and they may.

        Args:
            credentials: What the request brings.
            scope: What it takes.
            address: Where it comes from.
        """
        if self._authenticator is None:
            return _of_address(address)
        caller = self._authenticator.known(credentials)
        return caller if caller is not None and scope in caller.scopes else None

    def begin(self, caller: Caller) -> None:
        """Counts a request of theirs, and notes whose work is being done; `end` has to follow unless it raises.

        Args:
            caller: Who.

        Raises:
            RateLimited: It is one too many.
        """
        caller_name.set(caller.name)
        if self._limits is not None:
            self._limits.take(caller.name)
            self._limits.enter(caller.name)

    def end(self, caller: Caller) -> None:
        """Forgets a request that `begin` counted.

        Args:
            caller: Who.
        """
        if self._limits is not None:
            self._limits.leave(caller.name)

    def take(self, caller: Caller) -> None:
        """Counts one more message of a request that has begun.

        Args:
            caller: Who.

        Raises:
            RateLimited: It comes too early.
        """
        if self._limits is not None:
            self._limits.take(caller.name)

    def say(self, error: Exception, scope: Scope, address: str) -> None:
        """Notes a refusal in the log, unless one was noted a moment ago.

        Args:
            error: Why.
            scope: What it would have taken.
            address: Where the request came from.
        """
        now_s = time.monotonic()
        if now_s - self._said_s < SAY_EVERY_S:
            self._unsaid += 1
            return
        log.warning("refused", address=address, scope=scope, reason=str(error), unsaid=self._unsaid)
        self._said_s, self._unsaid = now_s, 0


def _of_address(address: str) -> Caller:
    return Caller(f"address:{address}", _EVERYTHING)
