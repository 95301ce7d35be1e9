"""What every gRPC method does: name the request, read its deadline, tell an error."""

import math
from typing import Any, Final, NoReturn

import grpc
import structlog

from server.deadline import Deadline
from server.errors import Draining, Overloaded, ShoalError
from server.transports.grpc_host import may_push_back
from server.transports.request_ids import request_id_of
from server.transports.status import message_of, status_of

REQUEST_ID: Final = "x-request-id"
# gRPC's own name for "try again in so many milliseconds": clients with a retry policy keep to it.
PUSHBACK: Final = "grpc-retry-pushback-ms"

Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


def identify(context: Context) -> str:
    """Reads or makes the request's id, and has it sent back.

    Args:
        context: The call's.
    """
    given = next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID), None)
    request_id = request_id_of(given if isinstance(given, str) else None)
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    return request_id


def deadline_of(context: Context) -> Deadline | None:
    """When the caller stops waiting, or None where it waits for ever.

    Args:
        context: The call's.
    """
    remaining_s: float | None = context.time_remaining()
    return None if remaining_s is None else Deadline.after(remaining_s)


def refuse_if(closing: bool) -> None:  # noqa: FBT001  it reads as it is called
    """Refuses a new call while the server stops.

    Args:
        closing: Whether it does.

    Raises:
        Draining: It does.
    """
    if closing:
        raise Draining("the server is stopping; send the request again, to another one")


async def abort(context: Context, error: Exception, request_id: str) -> NoReturn:
    """Ends a call with an error.

    Args:
        context: The call's.
        error: Any; the caller is told of Shoal's own only.
        request_id: The request's.
    """
    log_unexpected(error, request_id)
    metadata = [(REQUEST_ID, request_id)]
    if isinstance(error, Overloaded) and may_push_back(context):
        metadata.append((PUSHBACK, str(math.ceil(error.retry_after_s * 1e3))))
    await context.abort(status_of(error).grpc, message_of(error), tuple(metadata))
    raise AssertionError("abort raises")


def log_unexpected(error: Exception, request_id: str) -> None:
    """Logs an error that was not written for callers.

    Args:
        error: Any.
        request_id: The request's.
    """
    if not isinstance(error, ShoalError):
        log.error("request failed", request_id=request_id, exc_info=error)
