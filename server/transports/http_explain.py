"""`POST /explain`: which places of a picture speak for a class.

body ──▶ codec ──▶ service.explain ──▶ codec ──▶ {"class": …, "map": [[…]], …}
"""

from typing import Final

from aiohttp import hdrs, web

from server.errors import InvalidInput
from server.explanation import ExplainRequest
from server.transports import openapi_plain
from server.transports.codecs import explain
from server.transports.http_inference import JSON, read_budget, read_number
from server.transports.http_keys import METRICS, REQUEST_ID, SERVICE, TIMING
from server.transports.http_routes import Route, read_body

PROTOCOL: Final = "http"


async def post_explain(request: web.Request) -> web.Response:
    """Answers `POST /explain` and `POST /explain/{model}`."""
    body = await read_body(request)
    try:
        wanted = _read(request, body)
    except InvalidInput as error:
        request.app[METRICS].record(PROTOCOL, "", 0, type(error).__name__, 0.0)
        raise
    explanation = await request.app[SERVICE].explain(wanted)
    request[TIMING] = explanation.timing
    return web.Response(body=explain.encode_response(explanation, request[REQUEST_ID]), content_type=JSON)


EXPLAIN_ROUTES: Final = (
    Route(
        "POST",
        "/explain",
        post_explain,
        "which places of a picture speak for a class, by the default model",
        openapi_plain.EXPLAIN,
    ),
    Route("POST", "/explain/{model}", post_explain, "the same by the model of that name", openapi_plain.EXPLAIN),
)


def _read(request: web.Request, body: bytes) -> ExplainRequest:
    query = request.query
    told = explain.decode_request(body, request.headers.get(hdrs.CONTENT_TYPE, ""))
    return ExplainRequest(
        image=told.image,
        model=request.match_info.get("model") or query.get("model", ""),
        version=read_number(query.get("version")),
        wanted=query.get("class", told.wanted),
        deadline=read_budget(request.headers.get("X-Latency-Budget-Ms")),
        protocol=PROTOCOL,
    )
