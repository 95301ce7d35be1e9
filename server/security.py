"""What the settings ask for in matters of security, opened, kept up to date and closed again.

settings ──▶ keys, secrets, key set ──▶ Authenticator ─┐
         ──▶ rates ───────────────────▶ Limits ────────┴─▶ Guard ─┐
         ──▶ certificates ────────────▶ Tls ──────────────────────┴─▶ Security, for both transports
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from server.auth import Authenticator
from server.auth_guard import Guard
from server.auth_keys import KeyFile
from server.errors import StartupError
from server.rate_limit import Limits, open_table
from server.secret_files import refresh_for_ever
from server.settings import Settings
from server.tls import Tls, open_tls
from server.trusted_proxies import TrustedProxies

if TYPE_CHECKING:
    from server.auth_jwks import FileKeys, RemoteKeys
    from server.auth_tokens import Revoked, Secrets

REQUEST_TIMEOUT_S: Final = 60.0

Refresh = Callable[[], Awaitable[None]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Security:
    """What both transports keep to.

    Args:
        guard: Lets requests in; None where nothing is asked of callers and nothing limited.
        tls: The certificates; None where connections are plain.
        origins: Web pages of other origins that may use the server.
        request_timeout_s: How long a request may take to arrive.
    """

    guard: Guard | None = None
    tls: Tls | None = None
    origins: tuple[str, ...] = ()
    request_timeout_s: float = REQUEST_TIMEOUT_S

    @property
    def asks(self) -> bool:
        """Whether callers have to say who they are."""
        return self.guard is not None and self.guard.asks

    @property
    def restricts(self) -> bool:
        """Whether anything about a request's sender matters."""
        return self.guard is not None or bool(self.origins)


@asynccontextmanager
async def open_security(settings: Settings) -> AsyncIterator[Security]:
    """What the settings ask for, following its files for as long as the context lasts.

    Args:
        settings: Of the server.

    Raises:
        StartupError: Keys or certificates cannot be read, or the settings do not fit together.
    """
    async with AsyncExitStack() as stack:
        refreshes: list[Refresh] = []
        authenticator = await _open_authenticator(settings, refreshes)
        limits = _open_limits(settings, stack)
        proxies = TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None
        tls = open_tls(settings)
        if tls is not None:
            refreshes.append(tls.refresh)
            log.info("TLS", certificate_until=tls.current.until, clients_need_one=tls.current.client_ca is not None)
        if refreshes:
            task = asyncio.create_task(refresh_for_ever(refreshes))
            stack.push_async_callback(_end, task)
        guard = None if authenticator is None and limits is None else Guard(authenticator, limits, proxies)
        yield Security(guard, tls, settings.cors_origins, settings.request_timeout_s)


async def _open_authenticator(settings: Settings, refreshes: list[Refresh]) -> Authenticator | None:
    _check(settings)
    if not (settings.api_keys or settings.jwt_key_file or settings.jwks):
        return None
    # Their cryptography is megabytes and a twentieth of a start, which a server that asks nobody can do without.
    from server.auth_jwks import open_key_set  # noqa: PLC0415
    from server.auth_tokens import Revoked, Secrets, Tokens  # noqa: PLC0415

    keys = KeyFile(settings.api_keys) if settings.api_keys is not None else None
    secrets = Secrets(settings.jwt_key_file) if settings.jwt_key_file is not None else None
    public = open_key_set(settings.jwks, settings.jwks_refresh_s) if settings.jwks else None
    revoked = Revoked(settings.jwt_revoked) if settings.jwt_revoked is not None else None
    tokens = None
    if secrets is not None or public is not None:
        tokens = Tokens(
            secrets,
            public,
            revoked,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway_s=settings.jwt_leeway_s,
        )
    authenticator = Authenticator(keys, tokens)
    refresh = _refresher(authenticator, [source for source in (keys, secrets, revoked) if source is not None], public)
    await refresh()
    refreshes.append(refresh)
    return authenticator


def _refresher(
    authenticator: Authenticator,
    files: "Sequence[KeyFile | Secrets | Revoked]",
    public: "FileKeys | RemoteKeys | None",
) -> Refresh:
    async def refresh() -> None:
        changed = [file.refresh() for file in files]
        if public is not None:
            changed.append(await public.refresh())
        if any(changed):
            authenticator.forget()

    return refresh


def _open_limits(settings: Settings, stack: AsyncExitStack) -> Limits | None:
    table = None
    if settings.rate_limit_per_s:
        table = open_table()
        stack.callback(table.close)
    elif not settings.max_concurrent_per_client:
        return None
    return Limits(settings.rate_limit_per_s, settings.max_concurrent_per_client, table)


def _check(settings: Settings) -> None:
    if settings.jwks and not settings.jwt_audience:
        raise StartupError(
            "--jwt-audience: expected one with --jwks, received none; an issuer's keys sign tokens for others too"
        )
    of_tokens = settings.jwt_issuer or settings.jwt_audience or settings.jwt_revoked
    if of_tokens and not (settings.jwks or settings.jwt_key_file):
        raise StartupError(
            "--jwks, --jwt-key-file: expected one of them beside --jwt-issuer, --jwt-audience and --jwt-revoked"
        )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
