"""HTTP: values to requests of the plain interface and back, and statuses to errors. Pure: no call is made here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from shoal_client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    ServerFailed,
    ShoalError,
    Unauthenticated,
    Unavailable,
    UnsupportedImage,
)
from shoal_client.images import Pixels
from shoal_client.options import Options
from shoal_client.results import Answer, ClassScore, ModelInfo, Prediction, Timing

BUDGET: Final = "X-Latency-Budget-Ms"
BINARY: Final = "application/octet-stream"
SHORTEST_BUDGET_S: Final = 1e-6  # the server takes none of 0
LONGEST_BUDGET_S: Final = 3600.0
OK: Final = 200

_PLAIN: Final[dict[int, type[ShoalError]]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: PermissionDenied,
    404: ModelNotFound,
    413: PayloadTooLarge,
    415: UnsupportedImage,
    504: DeadlineExceeded,
}
_REFUSED: Final[dict[int, type[Overloaded] | type[Unavailable]]] = {429: Overloaded, 503: Unavailable}
MODEL_NOT_FOUND: Final = "urn:shoal:model-not-found"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Args:
        method: GET or POST.
        path: Below the server's address, encoded.
        params: The query.
        headers: Headers besides the client's own.
        content: The body, or None where `files` are the body.
        files: A form's files.
    """

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    files: tuple[tuple[str, tuple[str, bytes, str]], ...] = ()

    def arguments(self, left_s: float | None) -> dict[str, Any]:
        """What httpx is called with.

        Args:
            left_s: Seconds until the deadline, which the server is told too; None: no limit.
        """
        headers = dict(self.headers)
        if left_s is not None:
            headers[BUDGET] = f"{max(SHORTEST_BUDGET_S, min(left_s, LONGEST_BUDGET_S)) * 1e3:.3f}"
        return {
            "method": self.method,
            "url": self.path,
            "params": self.params,
            "headers": headers,
            "content": self.content,
            "files": list(self.files) or None,
            "timeout": left_s,
        }


def write_predict(images: Sequence[bytes] | Pixels, options: Options) -> Request:
    """Makes a request to classify.

    Args:
        images: Files, or one array of pixels.
        options: Model, version and `top_k`.
    """
    path = f"predict/{quote(options.model, safe='')}" if options.model else "predict"
    params = _params(options) | {"top_k": str(options.top_k)}
    if isinstance(images, Pixels):
        data = memoryview(images.data).cast("B", list(images.shape)).tolist()
        body = json.dumps({"data": data, "scale": "0-255"}, separators=(",", ":")).encode()
        return Request("POST", path, params, {"Content-Type": "application/json"}, body)
    if len(images) == 1:
        return Request("POST", path, params, {"Content-Type": BINARY}, images[0])
    files = tuple(("file", (str(position), image, BINARY)) for position, image in enumerate(images))
    return Request("POST", path, params, files=files)


def write_describe(options: Options) -> Request:
    """Makes a request for a model's description.

    Args:
        options: Model and version.
    """
    return Request("GET", "model-info", _params(options) | ({"model": options.model} if options.model else {}))


def read_answer(response: httpx.Response) -> Answer:
    """Reads an answer.

    Args:
        response: It.

    Raises:
        ShoalError: It is an error, or not what Shoal answers.
    """
    document = _read_document(response)
    try:
        return Answer(
            tuple(Prediction(tuple(_read_score(score) for score in row)) for row in document["top"]),
            document["model"],
            int(document["version"]),
            _read_timing(response.headers.get("Server-Timing", "")),
            document.get("request_id", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _stranger(response) from error


def read_model(response: httpx.Response) -> ModelInfo:
    """Reads a model's description.

    Args:
        response: It.

    Raises:
        ShoalError: It is an error, or not what Shoal answers.
    """
    document = _read_document(response)
    try:
        return ModelInfo(
            name=document["name"],
            version=int(document["version"]),
            architecture=document.get("architecture", ""),
            framework=document.get("framework", ""),
            parameters=int(document.get("parameters", 0)),
            labels=tuple(document["labels"]),
            input_shape=tuple(document["input_shape"]),
            output_shape=tuple(document["output_shape"]),
            variant=document["variant"],
            providers=tuple(document["providers"]),
            metrics=document.get("metrics", {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _stranger(response) from error


def read_failure(error: httpx.HTTPError) -> ShoalError:
    """Tells a failed exchange as one of this package's errors.

    Args:
        error: What httpx raised.
    """
    words = str(error) or type(error).__name__
    # A pool or a connect that took too long has sent nothing, but then no time is left either.
    if isinstance(error, httpx.TimeoutException):
        return DeadlineExceeded("no answer within the call's time; allow more by timeout_s")
    if isinstance(error, httpx.ConnectError):
        return Unavailable(f"could not connect: {words}; does a server listen there?")
    return ConnectionLost(f"the connection broke before the answer came: {words}")


def _params(options: Options) -> dict[str, str]:
    return {} if options.version is None else {"version": str(options.version)}


def _read_score(score: dict[str, Any]) -> ClassScore:
    return ClassScore(score["class"], score["label"], score["probability"])


def _read_timing(header: str) -> Timing:
    """`decode;dur=0.1, queue;dur=0.2, ...`, in milliseconds."""
    spent = {name.strip(): value for name, _, value in (part.partition(";dur=") for part in header.split(","))}
    queue_us, decode_us, infer_us = (round(float(spent.get(name, 0)) * 1e3) for name in ("queue", "decode", "infer"))
    return Timing(queue_us, decode_us, infer_us)


def _read_document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    if response.status_code != OK:
        raise _error_of(response, document)
    return document


def _error_of(response: httpx.Response, document: dict[str, Any]) -> ShoalError:
    status = response.status_code
    message = str(document.get("detail") or f"{response.url} answered {status}")
    request_id = str(document.get("request_id") or response.headers.get("X-Request-Id", ""))
    if status in _REFUSED:
        advice_s = _read_seconds(response.headers.get("Retry-After", ""))
        return _REFUSED[status](message, request_id=request_id, retry_after_s=advice_s)
    if status == httpx.codes.NOT_FOUND and document.get("type") != MODEL_NOT_FOUND:
        return ServerFailed(f"expected Shoal's HTTP interface at {response.url}, it answered 404: {message}")
    if status in _PLAIN:
        return _PLAIN[status](message, request_id=request_id)
    return ServerFailed(f"{status}: {message}", request_id=request_id)


def _read_seconds(text: str) -> float:
    """Retry-After, in its form of whole seconds; a date is not advice to go by here."""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _stranger(response: httpx.Response) -> ServerFailed:
    return ServerFailed(
        f"expected an answer of Shoal's plain interface from {response.url}, received {response.content[:80]!r}",
        request_id=response.headers.get("X-Request-Id", ""),
    )
