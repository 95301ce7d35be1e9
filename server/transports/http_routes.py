"""What the plain HTTP interface serves: one table of routes, and a handler for each."""

import asyncio
import importlib.metadata
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import hdrs, web

from server.descriptions import ModelDescription
from server.errors import InvalidInput, PayloadTooLarge
from server.explanation import METHOD
from server.metrics import CONTENT_TYPE
from server.tensors import TensorSpec
from server.transports import openapi_plain
from server.transports.codecs.compression import decompress, read_codings
from server.transports.http_inference import Call, predict, read_number
from server.transports.http_keys import BODY_LIMIT, METRICS, REQUEST_ID, SERVICE, TIMING
from server.transports.http_page import get_asset, get_page
from server.transports.openapi_parts import Operation


class Route(NamedTuple):
    """One line of `GET /routes`.

    Args:
        method: The HTTP method; GET answers HEAD too.
        path: Its path, with names in braces.
        handler: Answers it.
        summary: What it is for.
        operation: What it takes and answers, for the OpenAPI document.
    """

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    summary: str
    operation: Operation | None = None


SERVED: Final = web.AppKey("served", tuple[Route, ...])  # every route there is


async def get_health(request: web.Request) -> web.Response:
    """Answers `GET /health` and `GET /health/ready`: 503 until a model is loaded and from the start of a stop."""
    health = request.app[SERVICE].health()
    return _json(
        {
            "status": health.status,
            "model_loaded": health.ready or health.version is not None,
            "model": health.model or None,
            "version": health.version,
            "uptime_s": round(health.uptime_s, 3),
            "shoal_version": shoal_version(),
        },
        status=200 if health.ready else 503,
    )


async def get_live(request: web.Request) -> web.Response:
    """Answers `GET /health/live`: 200 as long as the event loop turns."""
    return _json({"status": "alive", "uptime_s": round(request.app[SERVICE].health().uptime_s, 3)})


async def get_model_info(request: web.Request) -> web.Response:
    """Answers `GET /model-info`."""
    service = request.app[SERVICE]
    model = service.describe(request.query.get("model", ""), _read_version(request))
    states = [
        {"name": state.name, "version": state.version, "state": state.state, "reason": state.reason}
        for state in service.index()
    ]
    return _json(_spell_model(model) | {"versions": states})


async def get_example(request: web.Request) -> web.Response:
    """Answers `GET /example`: one of the pictures that the bundle brings with it, as its file was."""
    service = request.app[SERVICE]
    number = request.query.get("number", "0")
    if not number.isascii() or not number.isdigit():
        raise InvalidInput(f"expected a whole number, received {number[:40]!r}")
    data = await service.example(request.query.get("model", ""), _read_version(request), int(number[:9]))
    return web.Response(body=data, content_type="application/octet-stream")


async def get_routes(request: web.Request) -> web.Response:
    """Answers `GET /routes`."""
    routes = request.app[SERVED]
    return _json({"routes": [{"method": r.method, "path": r.path, "summary": r.summary} for r in routes]})


async def get_metrics(request: web.Request) -> web.Response:
    """Answers `GET /metrics`."""
    return web.Response(body=await request.app[METRICS].render_all(), headers={"Content-Type": CONTENT_TYPE})


async def post_predict(request: web.Request) -> web.Response:
    """Answers `POST /predict` and `POST /predict/{model}`."""
    query = request.query
    call = Call(
        body=await read_body(request),
        request_id=request[REQUEST_ID],
        model=request.match_info.get("model") or query.get("model", ""),
        version=query.get("version"),
        top_k=query.get("top_k"),
        content_type=request.headers.get(hdrs.CONTENT_TYPE, ""),
        budget_ms=request.headers.get("X-Latency-Budget-Ms"),
    )
    answer = await predict(request.app[SERVICE], request.app[METRICS], call)
    request[TIMING] = answer.timing
    return web.Response(body=answer.body, content_type=answer.kind)


ROUTES: Final = (
    Route("GET", "/", get_page, "a page to try the model with", openapi_plain.HOME),
    Route("GET", "/static/{name}", get_asset, "what that page is made of", openapi_plain.ASSET),
    Route("GET", "/health", get_health, "whether it is ready, and what answers", openapi_plain.HEALTH),
    Route("GET", "/health/live", get_live, "whether the process lives", openapi_plain.LIVE),
    Route("GET", "/health/ready", get_health, "whether it should be sent requests", openapi_plain.HEALTH),
    Route(
        "GET",
        "/model-info",
        get_model_info,
        "what a model takes, answers and was measured to do",
        openapi_plain.MODEL_INFO,
    ),
    Route("GET", "/example", get_example, "a picture to try the model with", openapi_plain.EXAMPLE),
    Route("GET", "/routes", get_routes, "this list", openapi_plain.ROUTES),
    Route("GET", "/metrics", get_metrics, "numbers for Prometheus", openapi_plain.METRICS),
    Route(
        "POST", "/predict", post_predict, "classify pictures or numbers with the default model", openapi_plain.PREDICT
    ),
    Route("POST", "/predict/{model}", post_predict, "classify with the model of that name", openapi_plain.PREDICT),
)


def too_large(limit_bytes: int) -> PayloadTooLarge:
    """The error for a body over the limit."""
    return PayloadTooLarge(
        f"expected a body of at most {limit_bytes:,} bytes, received more; send fewer or smaller pictures, or raise"
        " --max-body-bytes"
    )


def shoal_version() -> str:
    """The version of this software, as installed, or as a checkout's pyproject.toml has it."""
    try:
        return importlib.metadata.version("shoal")
    except importlib.metadata.PackageNotFoundError:
        pyproject = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text())["project"]["version"]) if pyproject.exists() else "unknown"


async def read_body(request: web.Request) -> bytes:
    """The whole body, decompressed.

    Args:
        request: Its request.

    Raises:
        InvalidInput: It is not compressed as its Content-Encoding says.
        PayloadTooLarge: It is over the limit, as it comes or decompressed.
        UnsupportedEncoding: It is compressed in an unknown way.
    """
    limit = request.app[BODY_LIMIT]
    if (request.content_length or 0) > limit:  # before a byte of it is read
        raise too_large(limit)
    if hdrs.CONTENT_ENCODING not in request.headers:
        return await request.read()
    codings = read_codings(", ".join(request.headers.getall(hdrs.CONTENT_ENCODING)))
    body = await request.read()
    # In a thread: at the default limit gzip takes some 40 ms. Neither zlib nor zstd holds the interpreter's lock.
    return await asyncio.to_thread(decompress, body, codings, limit) if codings else body


def _read_version(request: web.Request) -> int | None:
    return read_number(request.query.get("version"))


def _spell_model(model: ModelDescription) -> dict[str, Any]:
    manifest = model.manifest
    document: dict[str, Any] = {
        "name": model.name,
        "version": model.version,
        "variant": model.variant,
        "providers": model.providers,
        "labels": model.labels,
        "input_shape": model.inputs[0].shape if model.inputs else (),
        "output_shape": model.outputs[0].shape if model.outputs else (),
        "inputs": [_spell_tensor(spec) for spec in model.inputs],
        "outputs": [_spell_tensor(spec) for spec in model.outputs],
        "batch_cost_ms": {str(rows): round(cost_s * 1e3, 4) for rows, cost_s in model.costs_s.items()},
    }
    if manifest is None:
        return document
    preprocessing = manifest.preprocessing
    return document | {
        "architecture": manifest.architecture,
        "framework": manifest.framework,
        "parameters": manifest.parameters,
        "created_at": manifest.created_at,
        "metrics": dict(manifest.training.metrics),
        "variants": [
            {
                "name": variant.name,
                "accuracy": variant.accuracy,
                "agreement": variant.agreement,
                "size_bytes": variant.size_bytes,
                "images_per_s": variant.images_per_s,
            }
            for variant in manifest.variants
        ],
        "preprocessing": {
            "height_px": preprocessing.height,
            "width_px": preprocessing.width,
            "channels": preprocessing.channels,
            "resize": preprocessing.resize,
            "scale": preprocessing.scale,
            "offset": preprocessing.offset,
        },
        "training": {"run": manifest.training.run, "epochs": manifest.training.epochs, "seed": manifest.training.seed},
        "dataset": {"source": manifest.dataset.source, "rows": dict(manifest.dataset.rows)},
        "explanation": _spell_map(model.map_shape),
    }


def _spell_map(shape: tuple[int, int] | None) -> dict[str, Any] | None:
    return None if shape is None else {"method": METHOD, "height": shape[0], "width": shape[1]}


def _spell_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
