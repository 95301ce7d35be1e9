"""`/v2/…`: the Open Inference Protocol over HTTP, with Triton's extensions.

Errors are {"error": "…"} with the same status as on the plain interface; only 200 is success.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from server.errors import InvalidInput, ModelNotFound, ModelNotReady
from server.transports.codecs.v2 import V2Request, read_version
from server.transports.codecs.v2_json import decode_request, encode_response, read_object
from server.transports.http_keys import REQUEST_ID, TIMING, V2_DOOR
from server.transports.http_routes import Route, read_body, read_deadline

PREFIX: Final = "/v2"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
PROTOCOL: Final = "v2_http"
# Below this compression costs more than it saves: what it saves fits the same packet.
COMPRESS_FROM_BYTES: Final = 1024
COMPRESS_ASIDE_BYTES: Final = 1 << 16  # larger answers are compressed in a thread: this much takes about a millisecond
_MAX_DIGITS: Final = 12


async def post_infer(request: web.Request) -> web.Response:
    """Answers `POST /v2/models/{model}/infer`."""
    deadline = read_deadline(request)
    body = await read_body(request)
    v2 = request.app[V2_DOOR]
    wanted = v2.read(lambda: _decode(request, body), PROTOCOL)
    response = await v2.infer(wanted, request[REQUEST_ID], deadline)
    request[TIMING] = response.timing
    content, header_length = encode_response(response, wanted)
    kind = "application/json" if header_length is None else "application/octet-stream"
    answer = web.Response(body=content, content_type=kind, zlib_executor_size=COMPRESS_ASIDE_BYTES)
    if header_length is not None:
        answer.headers[HEADER_LENGTH] = str(header_length)
    if len(content) >= COMPRESS_FROM_BYTES:
        _compress(request, answer)
    return answer


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
    Route("GET", PREFIX, get_server, "Open Inference Protocol: the server's metadata"),
    Route("GET", f"{PREFIX}/health/live", get_live, "Open Inference Protocol: whether the process lives"),
    Route("GET", f"{PREFIX}/health/ready", get_ready, "Open Inference Protocol: whether it should be sent requests"),
    Route("GET", f"{PREFIX}/models/stats", get_statistics, "Open Inference Protocol: what all models have done"),
    *(
        route
        for path in (_MODEL, _VERSION)
        for route in (
            Route("GET", path, get_model, "Open Inference Protocol: what a model takes and answers"),
            Route("GET", f"{path}/ready", get_model_ready, "Open Inference Protocol: whether a model can answer"),
            Route("GET", f"{path}/config", get_config, "Open Inference Protocol: how a model is served"),
            Route("GET", f"{path}/stats", get_statistics, "Open Inference Protocol: what a model has done"),
            Route("POST", f"{path}/infer", post_infer, "Open Inference Protocol: tensors or pictures in, tensors out"),
        )
    ),
    Route("POST", f"{PREFIX}/repository/index", post_index, "Open Inference Protocol: every version of every model"),
    Route("POST", f"{_REPOSITORY}/load", post_load, "Open Inference Protocol: load a model"),
    Route("POST", f"{_REPOSITORY}/unload", post_unload, "Open Inference Protocol: let a model go"),
    *(
        Route(method, path, handler, summary)
        for path, handler, summary in (
            (f"{PREFIX}/trace/setting", trace, "Open Inference Protocol: what is traced"),
            (f"{_MODEL}/trace/setting", trace, "Open Inference Protocol: what is traced of a model"),
            (f"{PREFIX}/logging", logging, "Open Inference Protocol: what is logged"),
        )
        for method in ("GET", "POST")
    ),
    *(
        Route("GET", f"{PREFIX}/{kind}sharedmemory{path}/status", get_no_regions, "Open Inference Protocol: none")
        for kind in ("system", "cuda")
        for path in ("", "/region/{region}")
    ),
)


def _model(request: web.Request) -> tuple[str, str]:
    return request.match_info.get("model", ""), request.match_info.get("version", "")


def _decode(request: web.Request, body: bytes) -> V2Request:
    wanted = decode_request(body, _header_length(request))
    name, version = _model(request)
    wanted.infer.model, wanted.infer.version = name, read_version(version)
    return wanted


def _header_length(request: web.Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise InvalidInput(f"expected {HEADER_LENGTH} as a number of bytes, received {text[:40]!r}")
    return int(text)


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
