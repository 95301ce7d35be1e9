"""Keeps the trace that a gRPC call is part of, from its metadata; there only with --traces.

call ──metadata──▶ `tracing.keep_parent` ──▶ the method's handler
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import grpc

from server.tracing import keep_parent

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # a class that takes no parameters when it runs
MaybeHandler: TypeAlias = "Handler | None"
Metadata = Iterable[tuple[str, Any]]


class GrpcTracing(grpc.aio.ServerInterceptor):
    """Stands before every method."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        """Wraps the method's handler; gRPC's own event."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        metadata = [(str(name), value) for name, value in handler_call_details.invocation_metadata or ()]
        codec = handler.request_deserializer, handler.response_serializer
        answer: Any = handler.unary_unary
        if answer is not None:
            return grpc.unary_unary_rpc_method_handler(partial(_answer, answer, metadata), *codec)
        answer_all: Any = handler.stream_stream
        if answer_all is not None:
            return grpc.stream_stream_rpc_method_handler(partial(_answer_all, answer_all, metadata), *codec)
        return handler


async def _answer(behaviour: Callable[..., Any], metadata: Metadata, request: Any, context: Any) -> Any:
    keep_parent(metadata)
    return await behaviour(request, context)


async def _answer_all(
    behaviour: Callable[..., AsyncIterator[Any]], metadata: Metadata, requests: Any, context: Any
) -> AsyncIterator[Any]:
    keep_parent(metadata)
    async for answer in behaviour(requests, context):
        yield answer
