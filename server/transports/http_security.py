"""Who may use which route, and which web pages may: checked before a byte of a body is read.

    request ──▶ a route? ──▶ its scope ──▶ guard: 401, 403, 429 ──▶ its handler
                 └─ none: 404 by the router    └─ open: no question asked

A route that is not named here takes the scope `admin`, so one that is added and forgotten lets nobody in.
"""

import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from server.auth import Caller, Credentials, Scope
from server.auth_guard import Guard
from server.errors import PermissionDenied, RateLimited, Unauthenticated
from server.metrics import Metrics
from server.security import Security

ADMIN: Final[Scope] = "admin"
API_KEY: Final = "X-API-Key"
# What tells nothing of models or callers: load balancers ask for health, browsers for the pages and what is in them.
OPEN: Final = frozenset(
    {
        "/",
        "/docs",
        "/health",
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/routes",
        "/static/{name}",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
_MODEL: Final = r"\{model\}(?:/versions/\{version\})?"
_V1_MODEL: Final = r"\{model\}(?:/(?:versions/\{version\}|labels/\{label\}))?"
_SCOPES: Final[tuple[tuple[Scope, re.Pattern[str]], ...]] = (
    ("metrics", re.compile(r"GET /metrics")),
    ("predict", re.compile(r"GET /(?:model-info|example)")),
    ("predict", re.compile(r"POST /(?:predict|explain)(?:/\{model\})?")),
    ("feedback", re.compile(r"POST /feedback")),
    ("predict", re.compile(r"GET /v2")),
    ("predict", re.compile(r"GET /v2/models/stats")),
    ("predict", re.compile(rf"GET /v2/models/{_MODEL}(?:/(?:ready|config|stats))?")),
    ("predict", re.compile(rf"POST /v2/models/{_MODEL}/infer")),
    ("predict", re.compile(r"POST /v2/repository/index")),
    ("predict", re.compile(r"GET /v2/(?:system|cuda)sharedmemory(?:/region/\{region\})?/status")),
    ("predict", re.compile(r"GET /v1/models")),
    ("predict", re.compile(rf"GET /v1/models/{_V1_MODEL}(?:/metadata)?")),
    ("predict", re.compile(rf"POST /v1/models/{_V1_MODEL}:(?:predict|classify|regress|explain)")),
)
_PROTOCOLS: Final = {"v1": "tfserving_http", "v2": "v2_http"}
_READABLE: Final = "Inference-Header-Content-Length, Retry-After, Server-Timing, WWW-Authenticate, X-Request-Id"
_SENDABLE: Final = (
    "Authorization, Content-Encoding, Content-Type, Inference-Header-Content-Length, X-API-Key, X-Latency-Budget-Ms,"
    " X-Request-Id"
)
_PREFLIGHT_S: Final = 600

Done = TypeVar("Done")

log = structlog.get_logger()


class GuardedDoors(Protocol):
    """What `run_guarded` needs of the doors that all connections share."""

    security: Security
    metrics: Metrics


def scope_of(method: str, path: str) -> Scope | None:
    """What it takes to use a route, or None where it is open.

    Args:
        method: The HTTP method; HEAD is as GET.
        path: The route's, with names in braces.
    """
    method = hdrs.METH_GET if method == hdrs.METH_HEAD else method
    if method == hdrs.METH_GET and path in OPEN:
        return None
    asked = f"{method} {path}"
    return next((scope for scope, routes in _SCOPES if routes.fullmatch(asked)), ADMIN)


def credentials_of_fields(fields: Mapping[bytes, bytes]) -> Credentials:
    """What a request that was read by the hot path brings.

    Args:
        fields: Its headers, names in small letters, each once.
    """
    authorization, key = fields.get(b"authorization"), fields.get(b"x-api-key")
    return Credentials(
        None if authorization is None else authorization.decode("latin-1"),
        None if key is None else key.decode("latin-1"),
    )


def forwarded_in(fields: Mapping[bytes, bytes]) -> str:
    """What a request that was read by the hot path says of its way here.

    Args:
        fields: Its headers, names in small letters, each once.
    """
    return fields.get(b"x-forwarded-for", b"").decode("latin-1")


def address_of(peer: object) -> str:
    """An address without its port.

    Args:
        peer: As sockets tell it, or None.
    """
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


async def run_guarded(doors: GuardedDoors, caller: Caller, work: Coroutine[Any, Any, Done], *, v2: bool) -> Done:
    """Does a request of the hot path, whose sender was looked up already, within the sender's limits.

    Args:
        doors: With the guard, and what counts.
        caller: Who sends it.
        work: What answers it.
        v2: Whether it is by the Open Inference Protocol.

    Raises:
        RateLimited: It is one too many.
    """
    guard = doors.security.guard
    assert guard is not None
    try:
        guard.begin(caller)
    except RateLimited as error:
        work.close()
        guard.say(error, "predict", caller.name)
        doors.metrics.record("v2_http" if v2 else "http", "", 0, doors.metrics.note(error), 0.0)
        raise
    try:
        return await work
    finally:
        guard.end(caller)


class HttpSecurity:
    """Stands before every handler.

    Args:
        guard: Lets requests in; None where nothing is asked and nothing limited.
        origins: Web pages of other origins that may use the server.
        metrics: Counts who is refused.
    """

    def __init__(self, guard: Guard | None, origins: Sequence[str], metrics: Metrics) -> None:
        self._guard = guard
        self._origins = frozenset(origins)
        self._metrics = metrics

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a request in, or raises why not."""
        if self._origins and _is_preflight(request):
            return _preflight(request)
        info = request.match_info
        if self._guard is None or info.http_exception is not None or info.route.resource is None:
            return await handler(request)
        scope = scope_of(request.method, info.route.resource.canonical)
        if scope is None:
            return await handler(request)
        caller = await self._admit(self._guard, request, scope)
        try:
            return await handler(request)
        finally:
            self._guard.end(caller)

    async def add_headers(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Tells browsers which pages may read an answer; aiohttp's signal before each."""
        origin = request.headers.get(hdrs.ORIGIN)
        if not self._origins or origin is None:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin in self._origins or "*" in self._origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _READABLE

    async def _admit(self, guard: Guard, request: web.Request, scope: Scope) -> Caller:
        address = guard.address_of(request.remote or "", ", ".join(request.headers.getall(hdrs.X_FORWARDED_FOR, [])))
        try:
            caller = await guard.admit(_credentials_of(request), scope, address)
            guard.begin(caller)
        except (Unauthenticated, PermissionDenied, RateLimited) as error:
            guard.say(error, scope, address)
            self._metrics.record(_protocol_of(request.path), "", 0, self._metrics.note(error), 0.0)
            raise
        if scope == ADMIN and guard.asks:
            log.info("admin request", caller=caller.name, address=address, method=request.method, path=request.path)
        return caller


def _credentials_of(request: web.Request) -> Credentials:
    # Sent twice, a header becomes a value that is neither of the two, and fits nobody.
    authorization, keys = request.headers.getall(hdrs.AUTHORIZATION, []), request.headers.getall(API_KEY, [])
    return Credentials(", ".join(authorization) if authorization else None, ", ".join(keys) if keys else None)


def _protocol_of(path: str) -> str:
    return _PROTOCOLS.get(path.split("/", 2)[1], "http")


def _is_preflight(request: web.Request) -> bool:
    headers = request.headers
    return (
        request.method == hdrs.METH_OPTIONS and hdrs.ORIGIN in headers and hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers
    )


def _preflight(request: web.Request) -> web.Response:
    """What a browser asks before a page of another origin may send more than a form could."""
    allowed = request.match_info.http_exception
    methods = sorted(allowed.allowed_methods) if isinstance(allowed, web.HTTPMethodNotAllowed) else ["GET", "POST"]
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(methods),
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _SENDABLE,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_S),
    }
    return web.Response(status=204, headers=headers)
