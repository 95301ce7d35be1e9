"""gRPC: values to messages of `shoal.v1` and back, and statuses to errors. Pure: no call is made here."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc

from shoal_client._proto import classifier_pb2 as pb
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
)
from shoal_client.images import Payload, Pixels
from shoal_client.options import Options
from shoal_client.results import Answer, ClassScore, ModelInfo, Prediction, Timing

CLASSIFY: Final = "/shoal.v1.Classifier/Classify"
CLASSIFY_STREAM: Final = "/shoal.v1.Classifier/ClassifyStream"
GET_MODEL: Final = "/shoal.v1.Classifier/GetModel"
REQUEST_ID: Final = "x-request-id"
PUSHBACK: Final = "grpc-retry-pushback-ms"
# gRPC's own words where a connection could not be had, or was being closed, so that the server never saw the call.
NEVER_SENT: Final = ("failed to connect", "connection refused", "endpoint closing", "name resolution", "dns")

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # ours know the deadline and the budget
    # A channel is a connection: several of them reach several of the server's processes.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC waits up to two minutes before it looks again for a server that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A machine that has gone away without a word is noticed.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

_PLAIN: Final[dict[grpc.StatusCode, type[ShoalError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
_CODES: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


def write_request(images: Sequence[bytes] | Pixels, options: Options, request_id: str = "") -> pb.ClassifyRequest:
    """Makes a request.

    Args:
        images: Files, or one array of pixels.
        options: Model, version and `top_k`.
        request_id: What a stream's answer will be known by.
    """
    message = pb.ClassifyRequest(id=request_id, model=options.model, version=options.version or 0, top_k=options.top_k)
    if isinstance(images, Pixels):
        message.pixels.shape.extend(images.shape)
        message.pixels.data = images.data
    else:
        message.encoded.images.extend(images)
    return message


def write_one(payload: Payload, options: Options, request_id: str) -> bytes:
    """Makes a stream's request of one picture, as bytes.

    Args:
        payload: A file or an array.
        options: Model, version and `top_k`.
        request_id: What the answer will be known by.
    """
    images = payload if isinstance(payload, Pixels) else (payload,)
    return write_request(images, options, request_id).SerializeToString()


def read_answer(message: pb.ClassifyResponse, request_id: str = "") -> Answer:
    """Reads an answer.

    Args:
        message: It.
        request_id: The request's name in the server's log.
    """
    timing = message.timing
    return Answer(
        tuple(
            Prediction(tuple(ClassScore(score.index, score.label, score.probability) for score in prediction.classes))
            for prediction in message.predictions
        ),
        message.model,
        message.version,
        Timing(timing.queue_us, timing.decode_us, timing.infer_us),
        request_id,
    )


def read_stream_answer(message: pb.ClassifyResponse) -> Answer | ShoalError:
    """Reads one of a stream's answers.

    Args:
        message: It; a request that failed has `error` set.
    """
    code = message.error.code
    if not code:
        return read_answer(message)
    return error_of(_CODES.get(code, grpc.StatusCode.UNKNOWN), message.error.message, {PUSHBACK: "0", REQUEST_ID: ""})


def read_model(message: pb.Model) -> ModelInfo:
    """Reads a model's description.

    Args:
        message: It.
    """
    return ModelInfo(
        name=message.name,
        version=message.version,
        architecture=message.architecture,
        framework=message.framework,
        parameters=message.parameters,
        labels=tuple(message.labels),
        input_shape=tuple(message.input_shape),
        output_shape=tuple(message.output_shape),
        variant=message.variant,
        providers=tuple(message.providers),
        metrics=dict(message.metrics),
    )


def read_metadata(pairs: Iterable[Any] | None) -> dict[str, str]:
    """Trailing metadata as a dictionary; binary values are left out.

    Args:
        pairs: What gRPC gives, or None.
    """
    return {key: value for key, value in pairs or () if isinstance(value, str)}


def read_failure(error: grpc.RpcError) -> ShoalError:
    """Tells a failed call as one of this package's errors.

    Args:
        error: What gRPC raised; it is a call, too, from the synchronous and from the asynchronous API.
    """
    call: Any = error
    return error_of(call.code(), call.details() or "", read_metadata(call.trailing_metadata()))


def error_of(code: grpc.StatusCode, details: str, metadata: dict[str, str]) -> ShoalError:
    """The error for a status.

    Args:
        code: The status.
        details: Its text.
        metadata: What came with it: only Shoal's own answers have a request id.
    """
    request_id = metadata.get(REQUEST_ID, "")
    if code in _PLAIN:
        return _PLAIN[code](details, request_id=request_id)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if PUSHBACK in metadata:
            return Overloaded(details, request_id=request_id, retry_after_s=int(metadata[PUSHBACK] or 0) / 1e3)
        return PayloadTooLarge(details, request_id=request_id)
    if code is grpc.StatusCode.UNAVAILABLE:
        if REQUEST_ID in metadata or any(words in details.lower() for words in NEVER_SENT):
            return Unavailable(details, request_id=request_id)
        return ConnectionLost(details)
    return ServerFailed(f"{code.name}: {details}", request_id=request_id)
