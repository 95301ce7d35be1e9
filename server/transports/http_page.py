"""The page that people open, and the files it is made of.

GET / ──▶ index.html ──▶ /static/style.css, /static/app.js and the modules it imports ──▶ the plain interface
"""

from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

FOLDER: Final = Path(__file__).parent.parent / "web"
PAGE: Final = "index.html"
DOCS: Final = "docs.html"
_KINDS: Final = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Named one by one: what a request names is never joined to a folder unless it is here.
ASSETS: Final = frozenset(
    {
        "activation.js",
        "app.js",
        "bmp.js",
        "camera.js",
        "card.js",
        "docs.css",
        "docs.js",
        "docs_schema.js",
        "dom.js",
        "heat.js",
        "icon.svg",
        "models.js",
        "occlusion.js",
        "resize.js",
        "server.js",
        "style.css",
        "theme.js",
        "who.js",
    }
)
# Nothing from elsewhere, nothing inline, and no other page may frame this one. blob: is what a chosen file is shown by.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def get_page(request: web.Request) -> web.StreamResponse:
    """Answers `GET /`: the page, or to a client that takes anything, that the server lives.

    KServe's V1 protocol asks for that here; browsers name text/html.
    """
    if request.headers.get(hdrs.ACCEPT) == "*/*":
        return web.json_response({"status": "alive"}, headers={"Vary": hdrs.ACCEPT})
    page = _respond(PAGE)
    page.headers[hdrs.VARY] = hdrs.ACCEPT
    return page


async def get_docs(request: web.Request) -> web.StreamResponse:  # noqa: ARG001  every handler takes one
    """Answers `GET /docs`."""
    return _respond(DOCS)


async def get_asset(request: web.Request) -> web.StreamResponse:
    """Answers `GET /static/{name}`.

    Raises:
        HTTPNotFound: The page has no such file.
    """
    name = request.match_info["name"]
    if name not in ASSETS:
        raise web.HTTPNotFound
    return _respond(name)


def _respond(name: str) -> web.FileResponse:
    path = FOLDER / name
    headers = {
        "Cache-Control": "no-cache",  # asked for again each time, and answered 304 while it is the same
        "Content-Security-Policy": POLICY,
        "Content-Type": f"{_KINDS[path.suffix]}; charset=utf-8",
        "Permissions-Policy": "camera=(self)",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(path, headers=headers)
