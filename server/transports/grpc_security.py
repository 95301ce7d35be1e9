"""The rules of `http_security` for gRPC: metadata instead of headers, methods instead of routes.

    call ──▶ its method's scope ──▶ guard ──▶ its handler, or UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED
                                      ▲
    each message of a stream ─────────┘   a key taken back and a token that ends, end the stream too

A call is refused before its message is decoded. A method that is not named here takes the scope `admin`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import unquote

import grpc
import structlog

from server.auth import Caller, Credentials, Scope
from server.auth_guard import Guard
from server.errors import RateLimited, ShoalError
from server.metrics import Metrics
from server.tls import Certificates, Tls
from server.transports.grpc_calls import Context, abort, identify

ADMIN: Final[Scope] = "admin"
FORWARDED: Final = "x-forwarded-for"
_OPEN_SERVICES: Final = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
_OPEN: Final = frozenset({"/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"})
_PREDICT: Final = {
    "shoal.v1.Classifier": {"Classify", "ClassifyStream", "GetModel"},
    "inference.GRPCInferenceService": {
        "ModelInfer",
        "ModelStreamInfer",
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelStatistics",
        "ServerMetadata",
        "RepositoryIndex",
        "SystemSharedMemoryStatus",
        "CudaSharedMemoryStatus",
    },
    "tensorflow.serving.PredictionService": {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"},
    "tensorflow.serving.ModelService": {"GetModelStatus"},
}
_PROTOCOLS: Final = {"shoal": "grpc", "inference": "v2_grpc", "tensorflow": "tfserving_grpc"}

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # a class that takes no parameters when it runs
MaybeHandler: TypeAlias = "Handler | None"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]]

log = structlog.get_logger()


def scope_of(method: str) -> Scope | None:
    """What it takes to call a method, or None where it is open.

    Args:
        method: Such as `/shoal.v1.Classifier/Classify`.
    """
    _, service, name = method.split("/", 2)
    if service in _OPEN_SERVICES or method in _OPEN:
        return None
    return "predict" if name in _PREDICT.get(service, ()) else ADMIN


def credentials_for(tls: Tls) -> grpc.ServerCredentials:
    """TLS with the certificates that are in force when a connection begins.

    Args:
        tls: Knows them.
    """
    used = tls.current

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        if tls.current is used:
            return None
        used = tls.current
        return _configure(used)

    return grpc.dynamic_ssl_server_credentials(
        _configure(used),
        newer,  # type: ignore[arg-type]  # None means that nothing has changed, says gRPC's documentation
        require_client_authentication=used.client_ca is not None,
    )


class GrpcSecurity(grpc.aio.ServerInterceptor):
    """Stands before every method.

    Args:
        guard: Lets calls in.
        metrics: Counts who is refused.
    """

    def __init__(self, guard: Guard, metrics: Metrics) -> None:
        self._guard = guard
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> MaybeHandler:
        """Finds the method's handler, and puts the guard before it; gRPC's own event."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        scope = scope_of(method)
        if handler is None or scope is None:
            return handler
        credentials = _credentials_of(handler_call_details)
        if self._guard.asks:
            try:
                await self._guard.admit(credentials, scope, "")
            except ShoalError as error:
                return self._refusal(handler, method, scope, error)
        return _Guarded(self._guard, self._metrics, credentials, scope, method).wrap(handler)

    def _refusal(self, handler: Handler, method: str, scope: Scope, error: ShoalError) -> Handler:
        """A handler of the same kind, which gRPC asks for, that leaves the message as the bytes it is."""

        async def refuse(_: Any, context: Context) -> None:
            await _abort(context, error, self._guard, self._metrics, scope, method)

        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


class _Guarded:
    """One call that was let in, and its handler.

    Args:
        guard: Lets calls in.
        metrics: Counts who is refused.
        credentials: What the call brings.
        scope: What it takes.
        method: Its name.
    """

    def __init__(self, guard: Guard, metrics: Metrics, credentials: Credentials, scope: Scope, method: str) -> None:
        self._guard = guard
        self._metrics = metrics
        self._credentials = credentials
        self._scope: Scope = scope
        self._method = method
        self._error: ShoalError | None = None

    def wrap(self, handler: Handler) -> Handler:
        """The handler behind the guard."""
        codec = handler.request_deserializer, handler.response_serializer
        answer: Any = handler.unary_unary
        if answer is not None:
            return grpc.unary_unary_rpc_method_handler(partial(self._answer, answer), *codec)
        answer_all: Any = handler.stream_stream
        assert answer_all is not None, f"{self._method}: there is no guard for methods of its kind"
        return grpc.stream_stream_rpc_method_handler(partial(self._answer_all, answer_all), *codec)

    async def _answer(self, behaviour: Callable[..., Awaitable[Any]], request: Any, context: Context) -> Any:
        caller = await self._begin(context)
        try:
            return await behaviour(request, context)
        finally:
            self._guard.end(caller)

    async def _answer_all(
        self, behaviour: Callable[..., AsyncIterator[Any]], requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        caller = await self._begin(context)
        try:
            async for answer in behaviour(self._watch(requests, context), context):
                yield answer
        finally:
            self._guard.end(caller)
        if self._error is not None:
            await self._abort(self._error, context)

    async def _begin(self, context: Context) -> Caller:
        address = _address_of(context, self._guard)
        try:
            caller = await self._guard.admit(self._credentials, self._scope, address)
            self._guard.begin(caller)
        except ShoalError as error:
            await self._abort(error, context)
        if self._scope == ADMIN and self._guard.asks:
            log.info("admin request", caller=caller.name, address=address, method=self._method)
        return caller

    async def _watch(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """The messages, as long as their sender may send them, and no faster; what came before is still answered."""
        address, first = _address_of(context, self._guard), True
        async for message in requests:
            try:
                caller = await self._guard.admit(self._credentials, self._scope, address)
            except ShoalError as error:
                self._error = error
                return
            if not first:
                await self._wait_turn(caller)
            first = False
            yield message

    async def _wait_turn(self, caller: Caller) -> None:
        while True:
            try:
                return self._guard.take(caller)
            except RateLimited as error:
                await asyncio.sleep(error.retry_after_s)

    async def _abort(self, error: ShoalError, context: Context) -> NoReturn:
        await _abort(context, error, self._guard, self._metrics, self._scope, self._method)


async def _abort(
    context: Context, error: ShoalError, guard: Guard, metrics: Metrics, scope: Scope, method: str
) -> NoReturn:
    guard.say(error, scope, _address_of(context, guard))
    protocol = _PROTOCOLS.get(method[1:].split(".", 1)[0], "grpc")
    metrics.record(protocol, "", 0, metrics.note(error), 0.0)
    await abort(context, error, identify(context))


def _configure(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], root_certificates=certificates.client_ca
    )


def _credentials_of(details: grpc.HandlerCallDetails) -> Credentials:
    found: dict[str, list[str]] = {}
    for key, value in details.invocation_metadata or ():
        if isinstance(value, str):
            found.setdefault(key, []).append(value)
    # Sent twice, one becomes a value that is neither of the two, and fits nobody.
    joined = {key: ", ".join(values) for key, values in found.items()}
    return Credentials(joined.get("authorization"), joined.get("x-api-key"))


def _address_of(context: Context, guard: Guard) -> str:
    """Where a call comes from; its peer is as in `ipv4:127.0.0.1:5000` and `ipv6:%5B::1%5D:5000`."""
    address = unquote(context.peer()).partition(":")[2]
    told = [str(value) for key, value in context.invocation_metadata() or () if key == FORWARDED]
    return guard.address_of(address.rpartition(":")[0].strip("[]") or address, ", ".join(told))
