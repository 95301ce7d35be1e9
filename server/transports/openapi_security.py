"""What the OpenAPI document tells where callers have to say who they are: how, for what, and what they hear if not."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from server.transports.http_routes import Route
from server.transports.http_security import API_KEY, scope_of
from server.transports.openapi_parts import Document

REFUSALS: Final = (401, 403, 429)
SCHEMES: Final[Document] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JSON Web Token, or an API key, as `Authorization: Bearer …`.",
    },
    "key": {"type": "apiKey", "in": "header", "name": API_KEY, "description": "An API key."},
}


def with_refusals(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes, with what a caller hears of those that are not open.

    Args:
        routes: Every route that is mounted.
    """
    return tuple(route if scope_of(route.method, route.path) is None else _refuse(route) for route in routes)


def add_schemes(document: Document) -> None:
    """Says in a document what each of its routes asks for.

    Args:
        document: It, whole otherwise.
    """
    document["components"]["securitySchemes"] = SCHEMES
    for path, item in document["paths"].items():
        for method, operation in item.items():
            scope = scope_of(method.upper(), path)
            operation["security"] = [] if scope is None else [{name: [scope]} for name in SCHEMES]


def _refuse(route: Route) -> Route:
    operation = route.operation
    if operation is None:
        return route
    return route._replace(operation=replace(operation, errors=tuple({*operation.errors, *REFUSALS})))
