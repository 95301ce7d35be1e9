"""gRPC on one asyncio server: the plain interface, two open protocols, the standard health, reflection.

Classify        message ──▶ codec ──▶ service ──▶ codec ──▶ message
ClassifyStream  messages ──▶ at most `window` of them at once ──▶ answers as they come, each with its request's id
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from protos import inference_pb2_grpc, tensorflow_serving_pb2_grpc
from server.deadline import Deadline
from server.descriptions import ModelDescription
from server.errors import Draining, ShoalError, StartupError
from server.metrics import Metrics
from server.security import Security
from server.service import Service
from server.settings import GrpcHost
from server.transports.codecs.classify import decode_request, encode_response
from server.transports.grpc_calls import abort, deadline_of, identify, log_unexpected, refuse_if
from server.transports.grpc_descriptors import DescriptorPools
from server.transports.grpc_host import make_server
from server.transports.grpc_security import GrpcSecurity, credentials_for
from server.transports.grpc_streams import AnswerStream, number_ids
from server.transports.grpc_tracing import GrpcTracing
from server.transports.status import message_of, status_of
from server.transports.tfserving import TfServing
from server.transports.tfserving_grpc import MODEL, PREDICTION, ModelStates, Prediction
from server.transports.v2 import V2
from server.transports.v2_grpc import INFERENCE, STOPPING, Inference

CLASSIFIER: Final = pb.DESCRIPTOR.services_by_name["Classifier"].full_name
# From "no new request" on: what a client had already sent may still be on its way through gRPC's own queues.
LINGER_S: Final = 0.1
REFUSE_S: Final = 0.25

Context = grpc.aio.ServicerContext[pb.ClassifyRequest, pb.ClassifyResponse]
ModelContext = grpc.aio.ServicerContext[pb.GetModelRequest, pb.Model]
Stream = AnswerStream[pb.ClassifyRequest, pb.ClassifyResponse]


class GrpcTransport:
    """Serves gRPC on one port.

    Args:
        service: Answers.
        metrics: Counts what never reaches the service.
        max_message_bytes: Size of a message at most.
        stream_window: Requests of one stream that are worked on at the same time.
        v2: Answers the Open Inference Protocol; what the HTTP side has, so that both tell the same settings.
        reuse_port: Whether other processes may listen on the same port.
        security: Who is let in, and how; None for everybody, without TLS.
        grpc_host: What speaks HTTP/2; see `grpc_host.make_server`.
    """

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        *,
        max_message_bytes: int,
        stream_window: int,
        v2: V2 | None = None,
        reuse_port: bool = False,
        security: Security | None = None,
        grpc_host: GrpcHost = "grpcio",
    ) -> None:
        self._service = service
        self._tls = security.tls if security is not None else None
        guard = security.guard if security is not None else None
        # Native hands streams to a server behind it, which does not know the addresses that limits would go by.
        by_address = guard is not None and not guard.asks
        self._server = make_server(
            "grpcio" if by_address and grpc_host == "auto" else grpc_host,
            secure=self._tls is not None,
            interceptors=[
                *([GrpcTracing()] if service.traced else []),
                *([GrpcSecurity(guard, metrics)] if guard is not None else []),
            ],
            options=[
                # A connection that says nothing, or no TLS, is not kept; gRPC's default is two minutes.
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Clients that keep connections warm ping every 10 s or so; gRPC's default is to hang up on them.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self._health = _Health()
        self._classifier = Classifier(service, metrics, stream_window)
        self._inference = Inference(v2 or V2(service, metrics), stream_window)
        pb_grpc.add_ClassifierServicer_to_server(self._classifier, self._server)
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, self._server)
        door = TfServing(service, metrics)
        self._prediction = Prediction(door)
        tensorflow_serving_pb2_grpc.add_PredictionServiceServicer_to_server(self._prediction, self._server)
        tensorflow_serving_pb2_grpc.add_ModelServiceServicer_to_server(ModelStates(door), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (CLASSIFIER, INFERENCE, PREDICTION, MODEL, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, DescriptorPools())

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
            if self._tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials_for(self._tls))
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
        for name in ("", CLASSIFIER, INFERENCE, PREDICTION):
            await self._health.set(name, status)

    async def stop(self, timeout_s: float) -> None:
        """Takes no new request and finishes what was accepted.

        Args:
            timeout_s: Seconds after which what is left is cancelled.
        """
        # gRPC's own stop cancels every call that reaches it before its client has heard of the stop. So clients are
        # told first: what was accepted goes on, new calls are UNAVAILABLE, and few are under way when it comes.
        self._classifier.closing = self._inference.closing = self._prediction.closing = True
        await asyncio.sleep(REFUSE_S)
        stopping = asyncio.create_task(self._server.stop(timeout_s))
        await asyncio.sleep(LINGER_S)
        self._classifier.end_streams()
        self._inference.end_streams()
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
        self._streams: set[Stream] = set()
        self.closing = False  # new calls are refused

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:  # noqa: N802
        """Answers one request."""
        request_id = identify(context)
        try:
            refuse_if(self.closing)
            return await self.answer(request, request_id, deadline_of(context))
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and everyone else goes on
            await abort(context, error, request_id)

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyResponse]:
        """Answers a stream of requests, several at once, in the order in which they are done."""
        request_id = identify(context)
        ids = number_ids(request_id)
        stream: Stream = AnswerStream(lambda request: self._work(request, context, next(ids)), self._window)
        self._streams.add(stream)
        try:
            async for answer in stream.answer_all(request_iterator):
                yield answer
            if stream.cut_short:
                await abort(context, Draining(STOPPING), request_id)
        finally:
            self._streams.discard(stream)

    async def GetModel(self, request: pb.GetModelRequest, context: ModelContext) -> pb.Model:  # noqa: N802
        """Describes a model."""
        request_id = identify(context)
        try:
            return _encode_model(self._service.describe(request.model, request.version or None))
        except Exception as error:  # noqa: BLE001
            await abort(context, error, request_id)

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

    async def _work(self, request: pb.ClassifyRequest, context: Context, request_id: str) -> pb.ClassifyResponse:
        try:
            return await self.answer(request, request_id, deadline_of(context))
        except Exception as error:  # noqa: BLE001  one request's failure must not end its stream
            log_unexpected(error, request_id)
            code: int = status_of(error).grpc.value[0]
            return pb.ClassifyResponse(id=request.id, error=pb.Error(code=code, message=message_of(error)))

    def end_streams(self) -> None:
        """Ends every stream once what it has brought is answered."""
        for stream in self._streams:
            stream.stop_reading()


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
