"""`/v1/…`: TensorFlow Serving's protocol over HTTP, which KServe calls its V1 protocol.

Errors are {"error": "…"} with the status that TensorFlow Serving has for them.
"""

from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

from server.errors import UnsupportedImage
from server.transports import openapi_tfserving as openapi
from server.transports.codecs.tfserving_describe import spell_metadata, spell_status
from server.transports.codecs.tfserving_json import decode_classify, decode_predict, encode_classify, encode_predict
from server.transports.codecs.tfserving_messages import Address
from server.transports.codecs.v2 import read_version
from server.transports.http_inference import read_budget
from server.transports.http_keys import REQUEST_ID, TIMING
from server.transports.http_routes import Route, read_body
from server.transports.status import status_of
from server.transports.tfserving import NOT_SERVED, TfServing
from server.transports.v2_http import spell_error

PREFIX: Final = "/v1"
PROTOCOL: Final = "tfserving_http"
TFSERVING_DOOR: Final = web.AppKey("tfserving", TfServing)


async def get_models(request: web.Request) -> web.Response:
    """Answers `GET /v1/models`."""
    return _json({"models": request.app[TFSERVING_DOOR].names()})


async def get_status(request: web.Request) -> web.Response:
    """Answers `GET /v1/models/{model}`: TensorFlow Serving's model status, and KServe's readiness."""
    door, address = request.app[TFSERVING_DOOR], _address(request)
    return _json(spell_status(address.name, door.states(address), ready=door.ready(address)))


async def get_metadata(request: web.Request) -> web.Response:
    """Answers `GET /v1/models/{model}/metadata`."""
    return _json(spell_metadata(request.app[TFSERVING_DOOR].model(_address(request))))


async def post_predict(request: web.Request) -> web.Response:
    """Answers `POST /v1/models/{model}:predict`."""
    deadline = read_budget(request.headers.get("X-Latency-Budget-Ms"))
    body = await read_body(request)
    door = request.app[TFSERVING_DOOR]
    wanted = door.read(lambda: _address(request), lambda model: decode_predict(body, model), PROTOCOL)
    response = await door.infer(wanted, request[REQUEST_ID], deadline)
    request[TIMING] = response.timing
    return web.Response(body=encode_predict(response, wanted), content_type="application/json")


async def post_classify(request: web.Request) -> web.Response:
    """Answers `POST /v1/models/{model}:classify`."""
    deadline = read_budget(request.headers.get("X-Latency-Budget-Ms"))
    body = await read_body(request)
    door = request.app[TFSERVING_DOOR]
    wanted = door.read(lambda: _address(request), lambda model: decode_classify(body, model), PROTOCOL)
    response = await door.infer(wanted, request[REQUEST_ID], deadline)
    request[TIMING] = response.timing
    return web.Response(body=encode_classify(response), content_type="application/json")


async def post_regress(request: web.Request) -> web.Response:  # noqa: ARG001  every handler takes one
    """Answers `POST /v1/models/{model}:regress`: it is not served."""
    return _not_served("regress")


async def post_explain(request: web.Request) -> web.Response:  # noqa: ARG001
    """Answers `POST /v1/models/{model}:explain`: it is not served."""
    return _not_served("explain")


def status_of_protocol(status: int, kind: str) -> int:
    """The HTTP status that TensorFlow Serving has for an error.

    Args:
        status: The one of the plain interface.
        kind: The error's short name.
    """
    # A request that does not fit the model is INVALID_ARGUMENT there, and that is 400 whatever it holds.
    return HTTPStatus.BAD_REQUEST if kind == status_of(UnsupportedImage()).kind else status


_MODEL: Final = f"{PREFIX}/models/{{model}}"
_PATHS: Final = (_MODEL, _MODEL + "/versions/{version}", _MODEL + "/labels/{label}")
_NAME: Final = "TensorFlow Serving"

TFSERVING_ROUTES: Final = (
    Route("GET", f"{PREFIX}/models", get_models, "KServe V1: the models that can answer", openapi.MODELS),
    *(
        route
        for path in _PATHS
        for route in (
            Route("GET", path, get_status, f"{_NAME}, KServe V1: the state of a model's versions", openapi.STATUS),
            Route(
                "GET", f"{path}/metadata", get_metadata, f"{_NAME}: what a model takes and answers", openapi.METADATA
            ),
            Route(
                "POST", f"{path}:predict", post_predict, f"{_NAME}, KServe V1: tensors or pictures in", openapi.PREDICT
            ),
            Route("POST", f"{path}:classify", post_classify, f"{_NAME}: examples in, classes out", openapi.CLASSIFY),
            Route("POST", f"{path}:regress", post_regress, f"{_NAME}: not served", openapi.NOT_SERVED),
            Route("POST", f"{path}:explain", post_explain, "KServe V1: not served", openapi.NOT_SERVED),
        )
    ),
)


def _address(request: web.Request) -> Address:
    match = request.match_info
    return Address(match["model"], read_version(match.get("version", "")), match.get("label", ""))


def _not_served(method: str) -> web.Response:
    return web.Response(
        status=HTTPStatus.BAD_REQUEST, body=spell_error(NOT_SERVED[method]), content_type="application/json"
    )


def _json(document: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")
