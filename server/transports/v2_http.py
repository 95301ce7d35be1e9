"""`/v2/…`: the Open Inference Protocol over HTTP, with Triton's extensions.

Errors are {"error": "…"} with the same status as on the plain interface; only 200 is success.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from server.errors import InvalidInput, ModelNotFound, ModelNotReady
from server.transports import openapi_v2
from server.transports.codecs.v2_json import read_object
from server.transports.http_inference import Call, infer_v2
from server.transports.http_keys import REQUEST_ID, TIMING, V2_DOOR
from server.transports.http_routes import Route, read_body
from server.transports.openapi_v2 import HEADER_LENGTH, V2

PREFIX: Final = "/v2"
# Below this compression costs more than it saves: what it saves fits the same packet.
COMPRESS_FROM_BYTES: Final = 1024
COMPRESS_ASIDE_BYTES: Final = 1 << 16  # larger answers are compressed in a thread: this much takes about a millisecond


async def post_infer(request: web.Request) -> web.Response:
    """Answers `POST /v2/models/{model}/infer`."""
    name, version = _model(request)
    call = Call(
        body=await read_body(request),
        request_id=request[REQUEST_ID],
        model=name,
        version=version,
        budget_ms=request.headers.get("X-Latency-Budget-Ms"),
        header_length=request.headers.get(HEADER_LENGTH),
    )
    answer = await infer_v2(request.app[V2_DOOR], call)
    request[TIMING] = answer.timing
    response = web.Response(body=answer.body, content_type=answer.kind, zlib_executor_size=COMPRESS_ASIDE_BYTES)
    if answer.header_length is not None:
        response.headers[HEADER_LENGTH] = str(answer.header_length)
    if len(answer.body) >= COMPRESS_FROM_BYTES:
        _compress(request, response)
    return response


async def get_live(request: web.Request) -> web.Response:  # noqa: ARG001  every handler takes one
    """Answers `GET /v2/health/live`."""
    return _json({"live": True})


async def get_ready(request: web.Request) -> web.Response:
    """Answers `GET /v2/health/ready`: 503 until a model is loaded and from the start of a stop."""
    ready = request.app[V2_DOOR].ready
    return _json({"ready": ready}, status=200 if ready else 503)


async def get_model_ready(request: web.Request) -> web.Response:
    """Answers `GET /v2/models/{model}/ready`."""
    name, version = _model(request)
    if not request.app[V2_DOOR].model_ready(name, version):
        raise ModelNotReady(f"'{name}' cannot answer now")
    return _json({"name": name, "ready": True})


async def get_server(request: web.Request) -> web.Response:
    """Answers `GET /v2`."""
    return _json(request.app[V2_DOOR].server())


async def get_model(request: web.Request) -> web.Response:
    """Answers `GET /v2/models/{model}`."""
    return _json(request.app[V2_DOOR].model(*_model(request)))


async def get_config(request: web.Request) -> web.Response:
    """Answers `GET /v2/models/{model}/config`."""
    return _json(request.app[V2_DOOR].config(*_model(request)))


async def get_statistics(request: web.Request) -> web.Response:
    """Answers `GET /v2/models/{model}/stats` and `GET /v2/models/stats`."""
    return _json(request.app[V2_DOOR].statistics(*_model(request)))


async def post_index(request: web.Request) -> web.Response:
    """Answers `POST /v2/repository/index`."""
    only_ready = read_object(await read_body(request)).get("ready", False)
    if not isinstance(only_ready, bool):
        raise InvalidInput(f"expected 'ready' as true or false, received {only_ready!r:.40}")
    return _json(request.app[V2_DOOR].index(only_ready=only_ready))


async def post_load(request: web.Request) -> web.Response:
    """Answers `POST /v2/repository/models/{model}/load`."""
    parameters = await _parameters(request)
    await request.app[V2_DOOR].load(request.match_info["model"], parameters)
    return _json({})


async def post_unload(request: web.Request) -> web.Response:
    """Answers `POST /v2/repository/models/{model}/unload`."""
    await _parameters(request)
    await request.app[V2_DOOR].unload(request.match_info["model"])
    return _json({})


async def get_no_regions(request: web.Request) -> web.Response:
    """Answers `GET /v2/systemsharedmemory/status` and its like: nothing is registered."""
    name = request.match_info.get("region")
    if name is not None:
        raise ModelNotFound(f"no shared memory is registered here, '{name[:100]}' neither")
    return _json([])


async def trace(request: web.Request) -> web.Response:
    """Answers GET and POST of `/v2/trace/setting` and `/v2/models/{model}/trace/setting`."""
    v2 = request.app[V2_DOOR]
    model = v2.known_model(request.match_info.get("model", ""))
    changes = read_object(await read_body(request)) if request.method == hdrs.METH_POST else {}
    v2.settings.set_trace(model, {key: _texts(key, value) for key, value in changes.items()})
    # A level is a list by the protocol, all others are one text.
    settings = v2.settings.trace(model)
    return _json({key: value if key == "trace_level" else value[0] for key, value in settings.items()})


async def logging(request: web.Request) -> web.Response:
    """Answers GET and POST of `/v2/logging`."""
    settings = request.app[V2_DOOR].settings
    if request.method == hdrs.METH_POST:
        settings.set_logs(read_object(await read_body(request)))
    return _json(settings.logs())


def spell_error(detail: str) -> bytes:
    """An error's body.

    Args:
        detail: What the caller is told; it may quote what is no valid Unicode.
    """
    return orjson.dumps({"error": detail.encode("utf-8", "backslashreplace").decode()})


_MODEL: Final = f"{PREFIX}/models/{{model}}"
_VERSION: Final = _MODEL + "/versions/{version}"
_REPOSITORY: Final = f"{PREFIX}/repository/models/{{model}}"

V2_ROUTES: Final = (
    Route("GET", PREFIX, get_server, f"{V2}: the server's metadata", openapi_v2.SERVER),
    Route("GET", f"{PREFIX}/health/live", get_live, f"{V2}: whether the process lives", openapi_v2.LIVE),
    Route("GET", f"{PREFIX}/health/ready", get_ready, f"{V2}: whether it should be sent requests", openapi_v2.READY),
    Route("GET", f"{PREFIX}/models/stats", get_statistics, f"{V2}: what all models have done", openapi_v2.STATISTICS),
    *(
        route
        for path in (_MODEL, _VERSION)
        for route in (
            Route("GET", path, get_model, f"{V2}: what a model takes and answers", openapi_v2.MODEL),
            Route("GET", f"{path}/ready", get_model_ready, f"{V2}: whether a model can answer", openapi_v2.MODEL_READY),
            Route("GET", f"{path}/config", get_config, f"{V2}: how a model is served", openapi_v2.CONFIG),
            Route("GET", f"{path}/stats", get_statistics, f"{V2}: what a model has done", openapi_v2.STATISTICS),
            Route("POST", f"{path}/infer", post_infer, f"{V2}: tensors or pictures in, tensors out", openapi_v2.INFER),
        )
    ),
    Route("POST", f"{PREFIX}/repository/index", post_index, f"{V2}: every version of every model", openapi_v2.INDEX),
    Route("POST", f"{_REPOSITORY}/load", post_load, f"{V2}: load a model", openapi_v2.LOAD),
    Route("POST", f"{_REPOSITORY}/unload", post_unload, f"{V2}: let a model go", openapi_v2.UNLOAD),
    Route("GET", f"{PREFIX}/trace/setting", trace, f"{V2}: what is traced", openapi_v2.GET_TRACE),
    Route("POST", f"{PREFIX}/trace/setting", trace, f"{V2}: trace otherwise", openapi_v2.SET_TRACE),
    Route("GET", f"{_MODEL}/trace/setting", trace, f"{V2}: what is traced of a model", openapi_v2.GET_MODEL_TRACE),
    Route("POST", f"{_MODEL}/trace/setting", trace, f"{V2}: trace a model otherwise", openapi_v2.SET_MODEL_TRACE),
    Route("GET", f"{PREFIX}/logging", logging, f"{V2}: what is logged", openapi_v2.GET_LOGS),
    Route("POST", f"{PREFIX}/logging", logging, f"{V2}: log otherwise", openapi_v2.SET_LOGS),
    *(
        Route("GET", f"{PREFIX}/{kind}sharedmemory{path}/status", get_no_regions, f"{V2}: none", operation)
        for kind in ("system", "cuda")
        for path, operation in (("", openapi_v2.REGIONS), ("/region/{region}", openapi_v2.REGION))
    ),
)


def _model(request: web.Request) -> tuple[str, str]:
    return request.match_info.get("model", ""), request.match_info.get("version", "")


async def _parameters(request: web.Request) -> dict[str, Any]:
    parameters = read_object(await read_body(request)).get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidInput(f"expected 'parameters' as an object, received {parameters!r:.40}")
    return parameters


def _texts(key: str, value: object) -> Sequence[str]:
    """A trace setting's values: Triton's clients send a text, a list of texts, or null for back to the default."""
    texts = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, (str, int)) for text in texts):
        raise InvalidInput(f"expected {key[:40]!r} as text, received {value!r:.40}")
    return [str(text) for text in texts]


def _compress(request: web.Request, answer: web.Response) -> None:
    """Compresses the answer where the client asks for it."""
    accepted = {
        coding.strip().lower()
        for coding, _, quality in (
            entry.partition(";") for entry in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(",")
        )
        if quality.replace(" ", "") not in ("q=0", "q=0.0")
    }
    for coding in (web.ContentCoding.gzip, web.ContentCoding.deflate):
        if coding.value in accepted:
            answer.enable_compression(coding)
            return


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
