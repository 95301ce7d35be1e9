"""Errors and timings as HTTP tells them: one shape on the plain interface, each protocol's own elsewhere."""

import json
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from server.errors import (
    InvalidInput,
    Overloaded,
    PermissionDenied,
    ShoalError,
    Unauthenticated,
    UnsupportedEncoding,
)
from server.tensors import Timing
from server.transports.codecs.compression import ACCEPTED
from server.transports.http_routes import too_large
from server.transports.status import message_of, status_of
from server.transports.tfserving_http import PREFIX as V1_PREFIX
from server.transports.tfserving_http import status_of_protocol
from server.transports.v2_http import PREFIX as V2_PREFIX
from server.transports.v2_http import spell_error

PROBLEM: Final = "application/problem+json"

log = structlog.get_logger()


class Problem(NamedTuple):
    """What to answer instead of what was asked for.

    Args:
        status: The HTTP status.
        body: What the caller is told.
        kind: The body's media type.
        headers: Further headers.
    """

    status: int
    body: bytes
    kind: str
    headers: Mapping[str, str]


def spell_problem(error: Exception, path: str, request_id: str, limit_bytes: int, method: str) -> Problem:
    """An error as the caller's protocol has it; RFC 9457 on the plain interface.

    Args:
        error: What went wrong.
        path: Of the request.
        request_id: The request's name.
        limit_bytes: Of bodies.
        method: Of the request.
    """
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        error = too_large(limit_bytes)
    if isinstance(error, web.HTTPException):
        return _http_problem(error, path, request_id, method)
    if isinstance(error, (web.RequestPayloadError, HttpProcessingError, ConnectionError)):
        error = InvalidInput(f"expected a whole body, received one that cannot be read: {error}")
    status = status_of(error)
    if not isinstance(error, ShoalError):
        log.error("request failed", request_id=request_id, path=path, exc_info=error)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))  # it can tell whole seconds only
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ACCEPTED
    if isinstance(error, (Unauthenticated, PermissionDenied)):
        headers["WWW-Authenticate"] = _challenge(error)
    return _respond(status.http, status.kind, status.title, message_of(error), path, request_id, headers)


def spell_timing(timing: Timing | None, total_s: float) -> str:
    """The value of `Server-Timing`.

    Args:
        timing: The stages, where an inference was made.
        total_s: From the request's head to the answer.
    """
    total = f"total;dur={total_s * 1e3:.3f}"
    if timing is None:
        return total
    return (
        f"decode;dur={timing.decode_us / 1e3:.3f}, queue;dur={timing.queue_us / 1e3:.3f},"
        f" infer;dur={timing.infer_us / 1e3:.3f}, {total}"
    )


def _challenge(error: Unauthenticated | PermissionDenied) -> str:
    """How to do better (RFC 6750, 3); an API key may be sent as a bearer token too."""
    if isinstance(error, PermissionDenied):
        return 'Bearer realm="shoal", error="insufficient_scope"'
    return 'Bearer realm="shoal"' + ("" if error.missing else ', error="invalid_token"')


def _http_problem(error: web.HTTPException, path: str, request_id: str, method: str) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed) and method == hdrs.METH_OPTIONS:
        allowed = ", ".join(sorted({*error.allowed_methods, hdrs.METH_OPTIONS}))
        return Problem(204, b"", "text/plain", {"Allow": allowed})
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    detail = error.reason
    if isinstance(error, web.HTTPNotFound):
        detail = f"there is nothing at {path[:200]}; GET /routes lists what there is"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        detail = f"expected {headers['Allow'].replace(',', ' or ')}, received {method[:20]}"
    kind = error.reason.lower().replace(" ", "-")
    return _respond(error.status, kind, error.reason, detail, path, request_id, headers)


def _respond(
    status: int, kind: str, title: str, detail: str, path: str, request_id: str, headers: Mapping[str, str]
) -> Problem:
    if path == V2_PREFIX or path.startswith(f"{V2_PREFIX}/"):
        return Problem(status, spell_error(detail), "application/json", headers)
    if path == V1_PREFIX or path.startswith(f"{V1_PREFIX}/"):
        return Problem(status_of_protocol(status, kind), spell_error(detail), "application/json", headers)
    document = {
        "type": f"urn:shoal:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    # A detail may quote what a client sent, which need not be valid Unicode.
    return Problem(status, json.dumps(document).encode("ascii"), PROBLEM, headers)
