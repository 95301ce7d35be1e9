"""Every error that a caller can meet, and where in a request's life it arises.

    bytes → transport → codec → admission → models → images → batcher → executor → bytes
            │           │       │           │        │        │         └ InferenceFailed
            │           │       │           │        │        └ Overloaded, DeadlineExceeded, Cancelled
            │           │       │           │        └ UnsupportedImage
            │           │       │           └ ModelNotFound, ModelNotReady, NoActivationMap
            │           │       └ Overloaded, Draining
            │           └ InvalidInput, PayloadTooLarge
            └ PayloadTooLarge, UnsupportedEncoding, Unauthenticated, PermissionDenied, RateLimited

    ShoalError
    ├── InvalidInput
    │   ├── UnsupportedImage
    │   └── UnsupportedEncoding
    ├── PayloadTooLarge
    ├── ModelNotFound
    ├── NoActivationMap
    ├── PredictionNotFound
    ├── Unauthenticated
    ├── PermissionDenied
    ├── Overloaded
    │   └── RateLimited
    ├── DeadlineExceeded
    ├── Cancelled
    ├── Unavailable
    │   ├── ModelNotReady
    │   └── Draining
    ├── InferenceFailed
    └── StartupError          (never answers a request: the process exits with code 2)
        └── BundleError

The classes know neither HTTP nor gRPC: `server.transports.status` maps each to its status and code.
"""


class ShoalError(Exception):
    """Base of every error with a message meant for the caller: expected, received, what to do."""


class InvalidInput(ShoalError):
    """The request's body, shape, type or values are not what the model takes."""


class UnsupportedImage(InvalidInput):
    """The bytes are no picture that can be decoded, or one that is refused (a decompression bomb)."""


class UnsupportedEncoding(InvalidInput):
    """The body is compressed in a way that is not undone here."""


class PayloadTooLarge(ShoalError):
    """The body, or what it decompresses to, is larger than the server's limit."""


class ModelNotFound(ShoalError):
    """No model, or no version of it, has that name here."""


class NoActivationMap(ShoalError):
    """The version has no class-activation map, because of how its network ends."""


class PredictionNotFound(ShoalError):
    """Feedback is on a prediction that is not in the log."""


class Unauthenticated(ShoalError):
    """The caller's identity is missing, wrong or expired.

    Args:
        message: For the caller.
        missing: Whether nothing was shown at all.
    """

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class PermissionDenied(ShoalError):
    """The caller is known but may not do this."""


class Overloaded(ShoalError):
    """The request cannot be answered in time, and is refused at once rather than late.

    Args:
        message: For the caller.
        retry_after_s: When the queue is predicted to have room, in seconds.
        reason: Which bound was met, in a word for metrics; "late" where the predicted wait was too long.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0, reason: str = "late") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason


class RateLimited(Overloaded):
    """The caller asks for more than one client may have, whatever the server has to do.

    Args:
        message: For the caller.
        retry_after_s: When it may ask again, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s, reason="rate_limit")


class DeadlineExceeded(ShoalError):
    """The request's deadline passed while it waited; the model never saw it."""


class Cancelled(ShoalError):
    """The caller went away before the answer was ready."""


class Unavailable(ShoalError):
    """The server cannot answer now, but may soon."""


class ModelNotReady(Unavailable):
    """The model is known but has no version that is loaded."""


class Draining(Unavailable):
    """The server is stopping and takes no new request."""


class InferenceFailed(ShoalError):
    """The model raised while it ran this request's batch."""


class StartupError(ShoalError):
    """The server cannot start as it was asked to."""


class BundleError(StartupError):
    """A bundle is missing, damaged or not what its manifest says."""
