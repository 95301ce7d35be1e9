"""The OpenAPI 3.1 document, put together from the very table that the routes are mounted from.

Route.operation + path ──▶ parameters, headers of every answer, errors in the protocol's form ──▶ one document
"""

import functools
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

from server.transports import openapi_feedback, openapi_plain, openapi_tfserving, openapi_v2
from server.transports.codecs.compression import ACCEPTED, CODINGS, MAX_CODINGS
from server.transports.codecs.plain import MAX_TOP_K
from server.transports.http_inference import MAX_BUDGET_MS, MAX_VERSION
from server.transports.http_page import ASSETS
from server.transports.http_routes import Route
from server.transports.openapi_parts import JSON, STRING, Document, ErrorForm, Operation, ref
from server.transports.openapi_security import add_schemes, with_refusals
from server.transports.status import TABLE
from server.transports.tfserving import LATEST

OPENAPI: Final = "3.1.1"
MEDIA_OF_ERRORS: Final[dict[ErrorForm, str]] = {
    "Problem": "application/problem+json",
    "V2Error": JSON,
    "TfError": JSON,
}
SCHEMAS: Final = openapi_plain.SCHEMAS | openapi_feedback.SCHEMAS | openapi_v2.SCHEMAS | openapi_tfserving.SCHEMAS

_ABOUT: Final = (
    "Every answer carries `X-Request-Id` and `Server-Timing`, errors too. GET routes answer HEAD, and every route"
    " OPTIONS. Bodies of requests may be compressed, which `Content-Encoding` names; their size is limited as it comes"
    " and as it is after decompression."
)
_IN_BRACES: Final = re.compile(r"\{(\w+)\}")
_MS: Final = r";dur=[\d.]+"
_CODING: Final = f"({'|'.join(CODINGS)})"
_CODING_LIST: Final = f"^(identity|{_CODING}(, ?{_CODING}){{0,{MAX_CODINGS - 1}}})?$"
_VERSION: Final = {"type": "integer", "minimum": 1, "maximum": MAX_VERSION - 1}


class Served(NamedTuple):
    """What the document's examples name.

    Args:
        version: This software's.
        models: Names of models that are served.
        image_input: Name of the first model's input.
        asks: Whether callers have to say who they are.
    """

    version: str
    models: tuple[str, ...]
    image_input: str
    asks: bool = False


@functools.lru_cache(maxsize=8)
def render(routes: tuple[Route, ...], served: Served) -> bytes:
    """The document as JSON; put together once for what is served, which seldom changes.

    Args:
        routes: Every route that is mounted.
        served: What the examples name.
    """
    return orjson.dumps(build(routes, served))


def build(routes: Iterable[Route], served: Served) -> Document:
    """Puts the document together.

    Args:
        routes: Every route that is mounted.
        served: What the examples name.
    """
    routes = with_refusals(routes) if served.asks else tuple(routes)
    paths: dict[str, Document] = {}
    tags: dict[str, None] = {}
    for route in routes:
        if route.operation is not None:
            paths.setdefault(route.path, {})[route.method.lower()] = _spell(route, route.operation)
            tags[route.operation.tag] = None
    document = {
        "openapi": OPENAPI,
        "info": {"title": "Shoal", "version": served.version, "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "parameters": _parameters(served.models),
            "headers": _HEADERS,
            "responses": _error_responses(routes),
        },
    }
    if served.asks:
        add_schemes(document)
    return _fill_in(document, served.image_input)


def _spell(route: Route, operation: Operation) -> Document:
    named = (*_IN_BRACES.findall(route.path), *operation.parameters)
    # A name that the path has is not asked for a second time.
    parameters = [name for number, name in enumerate(named) if name not in named[:number]]
    document: Document = {
        "operationId": "_".join((route.method.lower(), *(re.findall(r"\w+", route.path) or ["root"]))),
        "tags": [operation.tag],
        "summary": route.summary.removeprefix(f"{operation.tag}: "),
    }
    if operation.description:
        document["description"] = operation.description
    if parameters:
        document["parameters"] = [ref(_place(name, route.path), "parameters") for name in parameters]
    if operation.body is not None:
        document["requestBody"] = operation.body
    document["responses"] = {str(status): _with_headers(answer) for status, answer in operation.answers.items()} | {
        str(status): ref(f"{operation.error_form}{status}", "responses") for status in sorted(operation.errors)
    }
    return document


def _place(name: str, path: str) -> str:
    return f"path.{name}" if f"{{{name}}}" in path else name


def _with_headers(answer: Document) -> Document:
    shared = {name: ref(name, "headers") for name in ("X-Request-Id", "Server-Timing")}
    return answer | {"headers": shared | answer.get("headers", {})}


_HEADERS: Final[dict[str, Document]] = {
    "X-Request-Id": {
        "required": True,
        "description": "The caller's own name for the request, or one made here.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~:/+=@-]{1,128}$"},
    },
    "Server-Timing": {
        "required": True,
        "description": "Milliseconds spent, by stage; decode, queue and infer where there was an inference.",
        "schema": {"type": "string", "pattern": f"^(decode{_MS}, queue{_MS}, infer{_MS}, )?total{_MS}$"},
    },
    "Retry-After": {
        "required": True,
        "description": "Seconds until there is likely to be room.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "required": True,
        "description": "How to say who asks.",
        "schema": {"type": "string", "pattern": '^Bearer realm="shoal"(, error="[a-z_]+")?$'},
    },
    "Accept-Encoding": {
        "description": "Where the body's Content-Encoding is not known here: the ones that are.",
        "schema": {"const": ACCEPTED},
    },
}
_HEADERS_OF: Final = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    415: ("Accept-Encoding",),
    429: ("Retry-After",),
}


def _error_responses(routes: Iterable[Route]) -> dict[str, Document]:
    used = {
        (route.operation.error_form, status)
        for route in routes
        if route.operation is not None
        for status in route.operation.errors
    }
    return {f"{form}{status}": _error_response(form, status) for form, status in sorted(used)}


def _error_response(form: ErrorForm, status: int) -> Document:
    kinds = [kind for kind in TABLE.values() if kind.http == status]
    words = "; ".join(f"{kind.kind}: {kind.title}" for kind in kinds) or HTTPStatus(status).phrase
    response: Document = _with_headers(
        {"description": words, "content": {MEDIA_OF_ERRORS[form]: {"schema": ref(form)}}}
    )
    response["headers"] |= {name: ref(name, "headers") for name in _HEADERS_OF.get(status, ())}
    return response


def _parameters(models: Sequence[str]) -> dict[str, Document]:
    model = {"schema": STRING | {"examples": [*models]}, "description": "A model's name."}
    version = {"schema": _VERSION, "description": "Its version; without one the traffic policy chooses."}
    return {
        "path.model": {"name": "model", "in": "path", "required": True, **model},
        "path.version": {"name": "version", "in": "path", "required": True, **version},
        "path.name": _parameter("name", "path", {"type": "string", "enum": sorted(ASSETS)}, "A file of the pages."),
        "path.label": _parameter("label", "path", {"type": "string", "enum": [LATEST]}, "A label of its version."),
        "path.region": _parameter("region", "path", STRING, "A region of shared memory."),
        "model": {"name": "model", "in": "query", **model},
        "version": {"name": "version", "in": "query", **version},
        "top_k": _parameter(
            "top_k",
            "query",
            {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
            'How many classes "top" lists for each picture.',
        ),
        "class": _parameter(
            "class", "query", STRING, "A label, or a class's number; without one the most probable class."
        ),
        "number": _parameter(
            "number", "query", {"type": "integer", "minimum": 0, "default": 0}, "Which picture; any number will do."
        ),
        "X-Latency-Budget-Ms": _parameter(
            "X-Latency-Budget-Ms",
            "header",
            {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_BUDGET_MS},
            "Milliseconds until the answer is worth nothing. What cannot be answered in time is refused at once.",
        ),
        "X-Request-Id": _parameter(
            "X-Request-Id", "header", STRING, "1 to 128 letters, digits or ._~:/+=@- are taken over as they are."
        ),
        "Content-Encoding": _parameter(
            "Content-Encoding",
            "header",
            {"type": "string", "pattern": _CODING_LIST, "examples": [*CODINGS]},
            f"How the body is compressed: {ACCEPTED}, or up to {MAX_CODINGS} of them in the order they were applied.",
        ),
        openapi_v2.HEADER_LENGTH: _parameter(
            openapi_v2.HEADER_LENGTH,
            "header",
            {"type": "integer", "minimum": 0, "maximum": 999_999_999},
            "Length of the JSON where tensors follow it as bytes; 0 where the body is nothing but a picture.",
        ),
    }


def _parameter(name: str, place: str, schema: Document, description: str) -> Document:
    document: Document = {"name": name, "in": place, "schema": schema, "description": description}
    return document | {"required": True} if place == "path" else document


def _fill_in(document: Document, image_input: str) -> Document:
    """The document with the name of a real input in its examples; components that are shared stay as they are."""

    def fill(value: object) -> object:
        if isinstance(value, dict):
            return {key: fill(element) for key, element in value.items()}
        if isinstance(value, list):
            return [fill(element) for element in value]
        return image_input if value == openapi_v2.INPUT_NAME else value

    filled = fill(document)
    assert isinstance(filled, dict)
    return filled
