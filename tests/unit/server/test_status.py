import grpc
import pytest

from server import errors
from server.transports.status import INTERNAL, TABLE, message_of, status_of


def every_error(base: type[BaseException] = errors.ShoalError) -> list[type[BaseException]]:
    return [base, *(found for child in base.__subclasses__() for found in every_error(child))]


ANSWERED = [
    kind
    for kind in every_error()
    if kind.__module__ == "server.errors"
    and kind is not errors.ShoalError
    and not issubclass(kind, errors.StartupError)
]


@pytest.mark.parametrize("kind", ANSWERED)
def test_every_error_that_a_caller_can_meet_is_in_the_table(kind: type[BaseException]) -> None:
    assert kind in TABLE


@pytest.mark.parametrize(
    ("error", "http", "code"),
    [
        (errors.InvalidInput("x"), 400, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.UnsupportedImage("x"), 415, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.PayloadTooLarge("x"), 413, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.ModelNotFound("x"), 404, grpc.StatusCode.NOT_FOUND),
        (errors.Overloaded("x"), 429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineExceeded("x"), 504, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.Draining("x"), 503, grpc.StatusCode.UNAVAILABLE),
        (errors.ModelNotReady("x"), 503, grpc.StatusCode.UNAVAILABLE),
        (errors.InferenceFailed("x"), 500, grpc.StatusCode.INTERNAL),
        (KeyError("x"), 500, grpc.StatusCode.INTERNAL),
        (errors.ShoalError("x"), 500, grpc.StatusCode.INTERNAL),
    ],
)
def test_statuses(error: Exception, http: int, code: grpc.StatusCode) -> None:
    status = status_of(error)
    assert (status.http, status.grpc) == (http, code)


def test_a_class_of_its_own_is_told_as_its_ancestor() -> None:
    class TooDark(errors.UnsupportedImage):
        pass

    assert status_of(TooDark("x")) == TABLE[errors.UnsupportedImage]
    assert status_of(ValueError("x")) == INTERNAL


def test_kinds_are_told_apart() -> None:
    kinds = [status.kind for status in TABLE.values()]
    assert len(kinds) == len(set(kinds))


def test_callers_read_our_messages_and_nobody_elses() -> None:
    assert message_of(errors.InvalidInput("expected, received")) == "expected, received"
    assert "secret" not in message_of(KeyError("secret"))
