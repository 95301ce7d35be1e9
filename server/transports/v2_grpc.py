"""`inference.GRPCInferenceService`: the Open Inference Protocol over gRPC, with Triton's extensions."""

# ruff: noqa: N802, ARG002  the methods' names are the protocol's, and each is given its request

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from protos import inference_pb2 as pb
from protos import inference_pb2_grpc as pb_grpc
from server.errors import Draining, InvalidInput, ModelNotFound
from server.transports.codecs.v2_messages import decode_request, encode_response, read_choices
from server.transports.grpc_calls import Context, abort, deadline_of, identify, log_unexpected, refuse_if
from server.transports.grpc_streams import AnswerStream, number_ids
from server.transports.status import message_of
from server.transports.v2 import V2

INFERENCE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
PROTOCOL: Final = "v2_grpc"
STOPPING: Final = "the server is stopping; open the stream again"

Answer = TypeVar("Answer", bound=Message)
Stream = AnswerStream[pb.ModelInferRequest, pb.ModelStreamInferResponse]


class Inference(pb_grpc.GRPCInferenceServiceServicer):
    """The protocol's service.

    Args:
        v2: Answers.
        window: Requests of one stream that are worked on at the same time.
    """

    def __init__(self, v2: V2, window: int) -> None:
        self._v2 = v2
        self._window = window
        self._streams: set[Stream] = set()
        self.closing = False  # new calls are refused

    # ---- inference ----

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Answers one request."""
        request_id = identify(context)
        try:
            refuse_if(self.closing)
            return await self._infer(request, context, request_id)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and everyone else goes on
            await abort(context, error, request_id)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answers a stream of requests, several at once, in their order: clients need not name them."""
        request_id = identify(context)
        ids = number_ids(request_id)
        stream: Stream = AnswerStream(
            lambda message: self._answer(message, context, next(ids)), self._window, in_order=True
        )
        self._streams.add(stream)
        try:
            async for answer in stream.answer_all(request_iterator):
                yield answer
            if stream.cut_short:
                await abort(context, Draining(STOPPING), request_id)
        finally:
            self._streams.discard(stream)

    def end_streams(self) -> None:
        """Ends every stream once what it has brought is answered."""
        for stream in self._streams:
            stream.stop_reading()

    async def _answer(
        self, message: pb.ModelInferRequest, context: Context, request_id: str
    ) -> pb.ModelStreamInferResponse:
        try:
            return pb.ModelStreamInferResponse(infer_response=await self._infer(message, context, request_id))
        except Exception as error:  # noqa: BLE001  one request's failure must not end its stream
            log_unexpected(error, request_id)
            failed = pb.ModelInferResponse(model_name=message.model_name, id=message.id)
            return pb.ModelStreamInferResponse(error_message=message_of(error), infer_response=failed)

    async def _infer(self, message: pb.ModelInferRequest, context: Context, request_id: str) -> pb.ModelInferResponse:
        request = self._v2.read(lambda: decode_request(message), PROTOCOL)
        response = await self._v2.infer(request, request_id, deadline_of(context))
        return encode_response(response, request)

    # ---- health and metadata ----

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Whether the process lives."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Whether it should be sent requests."""
        return pb.ServerReadyResponse(ready=self._v2.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Whether a model can answer; one that there is not cannot."""

        async def tell() -> pb.ModelReadyResponse:
            try:
                return pb.ModelReadyResponse(ready=self._v2.model_ready(request.name, request.version))
            except ModelNotFound:
                return pb.ModelReadyResponse(ready=False)

        return await _tell(context, tell)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """What the server is and has of the protocol."""
        return pb.ServerMetadataResponse(**self._v2.server())

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """What a model takes and answers."""

        async def tell() -> pb.ModelMetadataResponse:
            return pb.ModelMetadataResponse(**self._v2.model(request.name, request.version))

        return await _tell(context, tell)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """How a model is served."""

        async def tell() -> pb.ModelConfigResponse:
            document = {"config": self._v2.config(request.name, request.version)}
            return json_format.ParseDict(document, pb.ModelConfigResponse())

        return await _tell(context, tell)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        """What models have done so far."""

        async def tell() -> pb.ModelStatisticsResponse:
            document = self._v2.statistics(request.name, request.version)
            return json_format.ParseDict(document, pb.ModelStatisticsResponse())

        return await _tell(context, tell)

    # ---- the repository ----

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        """Every version of every model."""

        async def tell() -> pb.RepositoryIndexResponse:
            document = {"models": self._v2.index(only_ready=request.ready)}
            return json_format.ParseDict(document, pb.RepositoryIndexResponse())

        return await _tell(context, tell)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Loads a model."""

        async def tell() -> pb.RepositoryModelLoadResponse:
            await self._v2.load(request.model_name, request.parameters)
            return pb.RepositoryModelLoadResponse()

        return await _tell(context, tell)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Lets a model go."""

        async def tell() -> pb.RepositoryModelUnloadResponse:
            await self._v2.unload(request.model_name)
            return pb.RepositoryModelUnloadResponse()

        return await _tell(context, tell)

    # ---- shared memory: none is registered ----

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """No region."""
        return pb.SystemSharedMemoryStatusResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        """No region."""
        return pb.CudaSharedMemoryStatusResponse()

    # ---- settings ----

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> pb.TraceSettingResponse:
        """Asks for and changes what is traced."""

        async def tell() -> pb.TraceSettingResponse:
            settings, model = self._v2.settings, self._v2.known_model(request.model_name)
            settings.set_trace(model, {key: tuple(value.value) for key, value in request.settings.items()})
            answer = pb.TraceSettingResponse()
            for key, values in settings.trace(model).items():
                answer.settings[key].value.extend(values)
            return answer

        return await _tell(context, tell)

    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:
        """Asks for and changes what is logged."""

        async def tell() -> pb.LogSettingsResponse:
            self._v2.settings.set_logs(_read_all(request.settings))
            answer = pb.LogSettingsResponse()
            for key, value in self._v2.settings.logs().items():
                kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
                setattr(answer.settings[key], kind, value)
            return answer

        return await _tell(context, tell)


def _read_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    values = read_choices(settings)
    missing = sorted(settings.keys() - values.keys())
    if missing:
        raise InvalidInput(f"expected a value for {missing[0]!r:.40}, received none")
    return values


async def _tell(context: Context, make: Callable[[], Awaitable[Answer]]) -> Answer:
    request_id = identify(context)
    try:
        return await make()
    except Exception as error:  # noqa: BLE001
        await abort(context, error, request_id)
