"""Every error that a call can raise.

ShoalError                 all of them; `request_id` finds the request in the server's log
├── InvalidInput           the pictures, the model's name or an option are not what the server takes
│   └── UnsupportedImage   not a picture that can be read (over gRPC: InvalidInput)
├── PayloadTooLarge        larger than the server's limit
├── ModelNotFound
├── Unauthenticated
├── PermissionDenied
├── Refused                nothing was processed: calls are repeated by the RetryPolicy before this is raised
│   ├── Overloaded         the answer would have come too late; `retry_after_s` is the server's advice
│   └── Unavailable        nobody listens, the server is stopping, or the model is not loaded
├── DeadlineExceeded       `timeout_s` is over
├── ConnectionLost         the connection broke before the answer came: it may have been processed
└── ServerFailed           the server met a fault, or answered what this client does not understand
"""


class ShoalError(Exception):
    """Base of every error of this package.

    Args:
        message: What was expected, what was received, what to do.
        request_id: The server's name for the request, or "".
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class InvalidInput(ShoalError):
    """The pictures, the model's name or an option are not what the server takes."""


class UnsupportedImage(InvalidInput):
    """The bytes are no picture that the server can read."""


class PayloadTooLarge(ShoalError):
    """The request is larger than the server's limit."""


class ModelNotFound(ShoalError):
    """No model, or no version of it, has that name there."""


class Unauthenticated(ShoalError):
    """The token is missing, wrong or expired."""


class PermissionDenied(ShoalError):
    """The token does not allow this."""


class Refused(ShoalError):
    """The server took nothing; trying again later is safe.

    Args:
        message: For people.
        request_id: The server's name for the request, or "".
        retry_after_s: The server's advice on when to try again, in seconds.
    """

    def __init__(self, message: str, *, request_id: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, request_id=request_id)
        self.retry_after_s = retry_after_s


class Overloaded(Refused):
    """The server could not have answered in time."""


class Unavailable(Refused):
    """Nobody listens there, the server is stopping, or the model is not loaded."""


class DeadlineExceeded(ShoalError):
    """The call's time is over."""


class ConnectionLost(ShoalError):
    """The connection broke before the answer came; the request may have been processed."""


class ServerFailed(ShoalError):
    """The server met a fault, or answered what this client does not understand."""
