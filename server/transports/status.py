"""The one table from an error class to its HTTP status and gRPC code."""

from typing import Final, NamedTuple

import grpc

from server import errors


class Status(NamedTuple):
    """How one class of error is told to callers.

    Args:
        http: The HTTP status.
        grpc: The gRPC code.
        kind: Its short name in metrics and in a problem's `type`, words joined by hyphens.
        title: The same for people; the same for every error of the class.
    """

    http: int
    grpc: grpc.StatusCode
    kind: str
    title: str


_CODE = grpc.StatusCode
INTERNAL: Final = Status(500, _CODE.INTERNAL, "internal", "The server failed")
# Overloaded is RESOURCE_EXHAUSTED because common clients retry UNAVAILABLE at once, which feeds an overload.
TABLE: Final[dict[type[BaseException], Status]] = {
    errors.InvalidInput: Status(400, _CODE.INVALID_ARGUMENT, "invalid-input", "The input is not what the model takes"),
    errors.UnsupportedImage: Status(415, _CODE.INVALID_ARGUMENT, "unsupported-image", "Not a picture that can be read"),
    errors.UnsupportedEncoding: Status(
        415, _CODE.INVALID_ARGUMENT, "unsupported-encoding", "Compressed in a way that is not undone here"
    ),
    errors.PayloadTooLarge: Status(413, _CODE.RESOURCE_EXHAUSTED, "payload-too-large", "The request is too large"),
    errors.ModelNotFound: Status(404, _CODE.NOT_FOUND, "model-not-found", "No such model"),
    errors.NoActivationMap: Status(
        404, _CODE.UNIMPLEMENTED, "no-activation-map", "The model has no class-activation map"
    ),
    errors.PredictionNotFound: Status(404, _CODE.NOT_FOUND, "prediction-not-found", "No such prediction in the log"),
    errors.Unauthenticated: Status(401, _CODE.UNAUTHENTICATED, "unauthenticated", "Who is asking?"),
    errors.PermissionDenied: Status(403, _CODE.PERMISSION_DENIED, "permission-denied", "Not allowed"),
    errors.Overloaded: Status(429, _CODE.RESOURCE_EXHAUSTED, "overloaded", "Too much to do to answer in time"),
    errors.RateLimited: Status(429, _CODE.RESOURCE_EXHAUSTED, "rate-limited", "Too many requests of one client"),
    errors.DeadlineExceeded: Status(504, _CODE.DEADLINE_EXCEEDED, "deadline-exceeded", "The deadline passed"),
    errors.Cancelled: Status(499, _CODE.CANCELLED, "cancelled", "The caller went away"),
    errors.Unavailable: Status(503, _CODE.UNAVAILABLE, "unavailable", "Not available now"),
    errors.ModelNotReady: Status(503, _CODE.UNAVAILABLE, "model-not-ready", "The model is not loaded"),
    errors.Draining: Status(503, _CODE.UNAVAILABLE, "draining", "The server is stopping"),
    errors.InferenceFailed: Status(500, _CODE.INTERNAL, "inference-failed", "The model failed"),
}


def status_of(error: BaseException) -> Status:
    """How an error is told to its caller.

    Args:
        error: Any error; one of a class that the table does not have is told as its nearest ancestor, or as a fault of
            the server.
    """
    for ancestor in type(error).__mro__:
        if ancestor in TABLE:
            return TABLE[ancestor]
    return INTERNAL


def message_of(error: BaseException) -> str:
    """What the caller is told.

    Args:
        error: Any error; only Shoal's own were written for callers, everything else may say too much.
    """
    if isinstance(error, errors.ShoalError):
        return str(error)
    return "an unexpected error, which the server has logged under this request's id"
