"""gRPC: the plain interface `shoal.v1.Classifier`, the standard health service and reflection, on one grpc.aio server.

Classify        message ──▶ codec ──▶ service ──▶ codec ──▶ message
ClassifyStream  messages ──▶ at most `window` of them at once ──▶ answers as they come, each with its request's id
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from server.deadline import Deadline
from server.errors import Draining, Overloaded, ShoalError, StartupError
from server.metrics import Metrics
from server.service import ModelDescription, Service
from server.transports.codecs.classify import decode_request, encode_response
from server.transports.request_ids import request_id_of
from server.transports.status import message_of, status_of

CLASSIFIER: Final = pb.DESCRIPTOR.services_by_name["Classifier"].full_name
REQUEST_ID: Final = "x-request-id"
# gRPC's own name for "try again in so many milliseconds": clients with a retry policy keep to it.
PUSHBACK: Final = "grpc-retry-pushback-ms"
# From "no new request" on: what a client had already sent may still be on its way through gRPC's own queues.
LINGER_S: Final = 0.1
STOPPING: Final = "the server is stopping; open the stream again"

Context = grpc.aio.ServicerContext[pb.ClassifyRequest, pb.ClassifyResponse]
ModelContext = grpc.aio.ServicerContext[pb.GetModelRequest, pb.Model]

log = structlog.get_logger()


class GrpcTransport:
    """Serves gRPC on one port.

    Args:
        service: Answers.
        metrics: Counts what never reaches the service.
        max_message_bytes: Size of a message at most.
        stream_window: Requests of one stream that are worked on at the same time.
        reuse_port: Whether other processes may listen on the same port.
    """

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        *,
        max_message_bytes: int,
        stream_window: int,
        reuse_port: bool = False,
    ) -> None:
        self._service = service
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Clients that keep connections warm ping every 10 s or so; gRPC's default is to hang up on them.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        self._health = _Health()
        self._classifier = Classifier(service, metrics, stream_window)
        pb_grpc.add_ClassifierServicer_to_server(self._classifier, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (CLASSIFIER, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listens and answers.

        Args:
            host: The address to listen on.
            port: The port; 0 lets the system choose one.

        Returns:
            The port.

        Raises:
            StartupError: It is taken.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(
                f"expected to listen for gRPC on {address}: {error}; choose another with --grpc-port"
            ) from error
        await self.publish_health()
        await self._server.start()
        return bound

    async def publish_health(self) -> None:
        """Tells the health service's callers and watchers whether the server is ready now."""
        ready = self._service.health().ready
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", CLASSIFIER):
            await self._health.set(name, status)

    async def stop(self, timeout_s: float) -> None:
        """Takes no new request and finishes what was accepted.

        Args:
            timeout_s: Seconds after which what is left is cancelled.
        """
        stopping = asyncio.create_task(self._server.stop(timeout_s))
        await asyncio.sleep(LINGER_S)
        self._classifier.end_streams()
        self._health.end_watches()
        await stopping


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # an untyped library's class
    """The standard service, but a stop does not wait for its watches, which have no end of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[None]] = set()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        watch = asyncio.create_task(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait({watch})
        finally:
            self._watches.discard(watch)
            watch.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)

    def end_watches(self) -> None:
        for watch in self._watches:
            watch.cancel()


class Classifier(pb_grpc.ClassifierServicer):
    """`shoal.v1.Classifier` over a service.

    Args:
        service: Answers.
        metrics: Counts what never reaches the service.
        window: Requests of one stream that are worked on at the same time.
    """

    def __init__(self, service: Service, metrics: Metrics, window: int) -> None:
        self._service = service
        self._metrics = metrics
        self._window = window
        self._streams: set[_Stream] = set()

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:  # noqa: N802
        """Answers one request."""
        request_id = _identify(context)
        try:
            return await self.answer(request, request_id, _deadline_of(context))
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and everyone else goes on
            await _abort(context, error, request_id)

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyResponse]:
        """Answers a stream of requests, several at once, in the order in which they are done."""
        request_id = _identify(context)
        stream = _Stream(self, context, request_id, self._window)
        self._streams.add(stream)
        try:
            async for answer in stream.answer_all(request_iterator):
                yield answer
            if stream.cut_short:
                await _abort(context, Draining(STOPPING), request_id)
        finally:
            self._streams.discard(stream)

    async def GetModel(self, request: pb.GetModelRequest, context: ModelContext) -> pb.Model:  # noqa: N802
        """Describes a model."""
        request_id = _identify(context)
        try:
            return _encode_model(self._service.describe(request.model, request.version or None))
        except Exception as error:  # noqa: BLE001
            await _abort(context, error, request_id)

    async def answer(
        self, message: pb.ClassifyRequest, request_id: str, deadline: Deadline | None
    ) -> pb.ClassifyResponse:
        """Answers one message.

        Raises:
            ShoalError: It cannot be answered.
        """
        try:
            request = decode_request(message)
        except ShoalError as error:
            self._metrics.record("grpc", "", 0, type(error).__name__, 0.0)
            raise
        request.request_id, request.deadline = request_id, deadline
        return encode_response(await self._service.infer(request), message)

    def end_streams(self) -> None:
        """Ends every stream once what it has brought is answered."""
        for stream in self._streams:
            stream.stop_reading()


class _Stream:
    """One `ClassifyStream` call.

    The window counts requests until their answers are written, so a client that does not read is not read from.
    """

    def __init__(self, classifier: Classifier, context: Context, request_id: str, window: int) -> None:
        self._classifier = classifier
        self._context = context
        self._request_id = request_id
        self._window = asyncio.Semaphore(window)
        self._answers: asyncio.Queue[pb.ClassifyResponse | None] = asyncio.Queue()
        self._working: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._reading = True
        self.cut_short = False

    async def answer_all(self, requests: AsyncIterator[pb.ClassifyRequest]) -> AsyncIterator[pb.ClassifyResponse]:
        self._reader = asyncio.create_task(self._read(requests))
        try:
            while (answer := await self._answers.get()) is not None:
                yield answer
                self._window.release()
            await self._reader
        finally:  # the client may have gone away
            tasks = [self._reader, *self._working]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop_reading(self) -> None:
        """Takes nothing more; what was read is still answered."""
        if self._reader is not None and self._reading:
            self.cut_short = True
            self._reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.ClassifyRequest]) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):  # by `stop_reading`
                await self._start_all(requests)
            self._reading = False
            if self._working:
                await asyncio.wait(self._working)
        finally:
            self._answers.put_nowait(None)

    async def _start_all(self, requests: AsyncIterator[pb.ClassifyRequest]) -> None:
        while True:
            await self._window.acquire()  # before reading, so that nothing is read that is not begun
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            task = asyncio.create_task(self._work(request))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def _work(self, request: pb.ClassifyRequest) -> None:
        try:
            answer = await self._classifier.answer(request, self._request_id, _deadline_of(self._context))
        except Exception as error:  # noqa: BLE001  one request's failure must not end its stream
            _log_unexpected(error, self._request_id)
            code: int = status_of(error).grpc.value[0]
            answer = pb.ClassifyResponse(id=request.id, error=pb.Error(code=code, message=message_of(error)))
        self._answers.put_nowait(answer)


def _identify(context: Context | ModelContext) -> str:
    """Reads or makes the request's id, and has it sent back."""
    given = next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID), None)
    request_id = request_id_of(given if isinstance(given, str) else None)
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    return request_id


def _deadline_of(context: Context) -> Deadline | None:
    remaining_s: float | None = context.time_remaining()
    return None if remaining_s is None else Deadline.after(remaining_s)


async def _abort(context: Context | ModelContext, error: Exception, request_id: str) -> NoReturn:
    _log_unexpected(error, request_id)
    metadata = [(REQUEST_ID, request_id)]
    if isinstance(error, Overloaded):
        metadata.append((PUSHBACK, str(math.ceil(error.retry_after_s * 1e3))))
    await context.abort(status_of(error).grpc, message_of(error), tuple(metadata))
    raise AssertionError("abort raises")


def _log_unexpected(error: Exception, request_id: str) -> None:
    if not isinstance(error, ShoalError):
        log.error("request failed", request_id=request_id, exc_info=error)


def _encode_model(model: ModelDescription) -> pb.Model:
    manifest = model.manifest
    return pb.Model(
        name=model.name,
        version=model.version,
        architecture=manifest.architecture if manifest else "",
        framework=manifest.framework if manifest else "",
        parameters=manifest.parameters if manifest else 0,
        labels=model.labels,
        input_shape=model.inputs[0].shape if model.inputs else (),
        output_shape=model.outputs[0].shape if model.outputs else (),
        variant=model.variant,
        providers=model.providers,
        metrics=dict(manifest.training.metrics) if manifest else {},
    )
