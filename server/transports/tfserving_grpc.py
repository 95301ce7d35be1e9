"""`tensorflow.serving.PredictionService` and `ModelService`: TensorFlow Serving's protocol over gRPC."""

# ruff: noqa: N802, ARG002  the methods' names are the protocol's, and each is given its request

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from protos import tensorflow_serving_pb2 as pb
from protos import tensorflow_serving_pb2_grpc as pb_grpc
from server.transports.codecs.tfserving_describe import check_fields, describe_metadata, describe_status
from server.transports.codecs.tfserving_messages import (
    decode_classify,
    decode_predict,
    encode_classify,
    encode_predict,
    read_address,
)
from server.transports.grpc_calls import Context, abort, deadline_of, identify, refuse_if
from server.transports.tfserving import NOT_SERVED, TfServing

PREDICTION: Final = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL: Final = pb.DESCRIPTOR.services_by_name["ModelService"].full_name
PROTOCOL: Final = "tfserving_grpc"

Answer = TypeVar("Answer", bound=Message)


class Prediction(pb_grpc.PredictionServiceServicer):
    """The service that answers.

    Args:
        door: Answers.
    """

    def __init__(self, door: TfServing) -> None:
        self._door = door
        self.closing = False  # new calls are refused

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Answers tensors, or encoded pictures, with tensors."""

        async def work(request_id: str) -> pb.PredictResponse:
            wanted = self._door.read(
                lambda: read_address(request.model_spec), lambda model: decode_predict(request, model), PROTOCOL
            )
            return encode_predict(await self._door.infer(wanted, request_id, deadline_of(context)), wanted)

        return await _answer(context, work, closing=self.closing)

    async def Classify(self, request: pb.ClassificationRequest, context: Context) -> pb.ClassificationResponse:
        """Answers examples with classes."""

        async def work(request_id: str) -> pb.ClassificationResponse:
            wanted = self._door.read(
                lambda: read_address(request.model_spec), lambda model: decode_classify(request, model), PROTOCOL
            )
            return encode_classify(await self._door.infer(wanted, request_id, deadline_of(context)), wanted)

        return await _answer(context, work, closing=self.closing)

    async def GetModelMetadata(
        self, request: pb.GetModelMetadataRequest, context: Context
    ) -> pb.GetModelMetadataResponse:
        """What a model takes and answers."""

        async def work(_: str) -> pb.GetModelMetadataResponse:
            check_fields(request.metadata_field)
            return describe_metadata(self._door.model(read_address(request.model_spec)))

        return await _answer(context, work)

    async def Regress(self, request: pb.RegressionRequest, context: Context) -> pb.RegressionResponse:
        """Is not served."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_SERVED["regress"])
        raise AssertionError("abort raises")

    async def MultiInference(
        self,
        request: pb.MultiInferenceRequest,
        context: Context,
    ) -> pb.MultiInferenceResponse:
        """Is not served."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_SERVED["multi"])
        raise AssertionError("abort raises")


class ModelStates(pb_grpc.ModelServiceServicer):
    """The service that tells how models are.

    Args:
        door: Answers.
    """

    def __init__(self, door: TfServing) -> None:
        self._door = door

    async def GetModelStatus(self, request: pb.GetModelStatusRequest, context: Context) -> pb.GetModelStatusResponse:
        """The state of a model's versions."""

        async def work(_: str) -> pb.GetModelStatusResponse:
            return describe_status(self._door.states(read_address(request.model_spec)))

        return await _answer(context, work)

    async def HandleReloadConfigRequest(
        self,
        request: pb.ReloadConfigRequest,
        context: Context,
    ) -> pb.ReloadConfigResponse:
        """Is not served."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_SERVED["reload"])
        raise AssertionError("abort raises")


async def _answer(context: Context, work: Callable[[str], Awaitable[Answer]], *, closing: bool = False) -> Answer:
    request_id = identify(context)
    try:
        refuse_if(closing)
        return await work(request_id)
    except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and everyone else goes on
        await abort(context, error, request_id)
