"""`/openapi.json`, and the page that shows it at `/docs`."""

import hashlib
from typing import Final

from aiohttp import web

from server.errors import ShoalError
from server.service import Service
from server.transports import openapi_plain
from server.transports.http_keys import SECURITY, SERVICE
from server.transports.http_page import get_docs
from server.transports.http_routes import SERVED, Route, shoal_version
from server.transports.openapi import Served, render

# Names in the examples while nothing is served.
NO_MODEL: Final = "pets"
NO_INPUT: Final = "image"


async def get_openapi(request: web.Request) -> web.Response:
    """Answers `GET /openapi.json`."""
    body = render(request.app[SERVED], _served(request.app[SERVICE], asks=request.app[SECURITY].asks))
    tag = hashlib.sha256(body).hexdigest()[:16]
    headers = {"Cache-Control": "no-cache", "ETag": f'"{tag}"'}
    if any(etag.value == tag for etag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)


DOCS_ROUTES: Final = (
    Route("GET", "/docs", get_docs, "a page to read about every route, and to try it", openapi_plain.HTML),
    Route("GET", "/openapi.json", get_openapi, "every route, as an OpenAPI 3.1 document", openapi_plain.DOCUMENT),
)


def _served(service: Service, *, asks: bool) -> Served:
    models = sorted({state.name for state in service.index() if state.state == "ready"})
    try:
        model = service.describe()
    except ShoalError:  # nothing is loaded yet
        return Served(shoal_version(), tuple(models) or (NO_MODEL,), NO_INPUT, asks)
    names = (model.name, *(name for name in models if name != model.name))  # the default one first
    return Served(shoal_version(), names, model.inputs[0].name if model.inputs else NO_INPUT, asks)
