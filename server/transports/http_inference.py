"""The requests that make up a server's load: `predict` and V2's `infer`, apart from how their HTTP was read.

Call ──▶ codec ──▶ service ──▶ codec ──▶ Answer

aiohttp's handlers and the hot path of `http_hot` both end here, so that they cannot answer differently.
"""

import time
from dataclasses import dataclass
from typing import Final

from server.deadline import Deadline
from server.errors import InvalidInput
from server.metrics import Metrics
from server.service import Service
from server.tensors import Timing
from server.transports.codecs import plain, v2_json
from server.transports.codecs.v2 import V2Request, read_version
from server.transports.v2 import V2

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
V2_HTTP: Final = "v2_http"
MAX_BUDGET_MS: Final = 3_600_000
MAX_VERSION: Final = 10**18
_MAX_DIGITS: Final = 12


@dataclass(slots=True)
class Call:
    """One request.

    Args:
        body: The whole body, decompressed.
        request_id: The name it goes by.
        model: Of the path or the query; empty for the default one.
        version: As the path or the query has it; None or empty where it has none.
        top_k: As the query has it.
        content_type: The header's value, or "".
        budget_ms: The header's value, or None.
        header_length: Of V2's JSON, by its header, or None.
    """

    body: bytes
    request_id: str
    model: str = ""
    version: str | None = None
    top_k: str | None = None
    content_type: str = ""
    budget_ms: str | None = None
    header_length: str | None = None


@dataclass(slots=True)
class Answer:
    """What to send back with status 200.

    Args:
        body: The whole body.
        kind: Its media type.
        timing: Where the time went.
        header_length: Of V2's JSON in the body, where there is something behind it.
    """

    body: bytes
    kind: str
    timing: Timing
    header_length: int | None = None


async def predict(service: Service, metrics: Metrics, call: Call) -> Answer:
    """Answers `POST /predict`.

    Args:
        service: Answers.
        metrics: Counts what never reaches the service.
        call: The request.

    Raises:
        ShoalError: It cannot be answered.
    """
    deadline = read_budget(call.budget_ms)
    try:
        request = plain.decode_request(call.body, call.content_type)
        top_k = request.top_k if call.top_k is None else plain.read_top_k(call.top_k)
        infer = request.infer
        infer.version = read_number(call.version)
    except InvalidInput as error:
        metrics.record("http", "", 0, type(error).__name__, 0.0)
        raise
    infer.model, infer.request_id, infer.deadline, infer.protocol = call.model, call.request_id, deadline, "http"
    response = await service.infer(infer)
    return Answer(plain.encode_response(response, top_k, call.request_id), JSON, response.timing)


async def infer_v2(v2: V2, call: Call) -> Answer:
    """Answers `POST /v2/models/{model}/infer`.

    Args:
        v2: Answers.
        call: The request.

    Raises:
        ShoalError: It cannot be answered.
    """
    deadline = read_budget(call.budget_ms)
    wanted = v2.read(lambda: _decode_v2(call), V2_HTTP)
    response = await v2.infer(wanted, call.request_id, deadline)
    content, header_length = v2_json.encode_response(response, wanted)
    return Answer(content, JSON if header_length is None else BINARY, response.timing, header_length)


def read_budget(text: str | None) -> Deadline | None:
    """The deadline that `X-Latency-Budget-Ms` names, or None.

    Args:
        text: The header's value, or None.

    Raises:
        InvalidInput: It is no number of milliseconds.
    """
    if text is None:
        return None
    try:
        budget_ms = float(text)
    except ValueError:
        budget_ms = -1.0
    if not 0 < budget_ms <= MAX_BUDGET_MS:
        raise InvalidInput(
            f"expected X-Latency-Budget-Ms above 0 and at most {MAX_BUDGET_MS:,} milliseconds, received {text[:40]!r}"
        )
    return Deadline.after(budget_ms / 1e3, now_s=time.monotonic())


def read_number(text: str | None) -> int | None:
    """A version of the query, or None.

    Args:
        text: As the query has it, or None.

    Raises:
        InvalidInput: It is no whole number above 0.
    """
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) < MAX_VERSION:
        raise InvalidInput(f"expected a version as a whole number above 0, received {text[:40]!r}")
    return int(text)


def _decode_v2(call: Call) -> V2Request:
    wanted = v2_json.decode_request(call.body, _header_length(call.header_length))
    wanted.infer.model, wanted.infer.version = call.model, read_version(call.version or "")
    return wanted


def _header_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise InvalidInput(f"expected Inference-Header-Content-Length as a number of bytes, received {text[:40]!r}")
    return int(text)
