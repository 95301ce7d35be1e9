"""TensorFlow Serving's operations, the same behind gRPC and HTTP.

tfserving_grpc ─messages─┐
                         ├─▶ TfServing: read, infer, model, states ──▶ Service
tfserving_http ─JSON─────┘

A request is read with its model's signature at hand, so the version that answers is chosen before it is read.
"""

from collections.abc import Callable
from typing import Final

from server.deadline import Deadline
from server.descriptions import ModelDescription
from server.errors import InvalidInput, ModelNotFound, ShoalError, Unavailable
from server.metrics import Metrics
from server.service import Service
from server.shelf import VersionState
from server.tensors import InferResponse
from server.transports.codecs.tfserving import TfRequest
from server.transports.codecs.tfserving_messages import Address

LATEST: Final = "latest"
NOT_SERVED: Final = {
    "regress": "this server classifies: Regress is not served, ask Predict for a model's own numbers",
    "multi": "MultiInference is not served; send its tasks as requests of their own, they share a batch all the same",
    "reload": "models follow the models folder here; change that, or load and unload by the Open Inference Protocol",
    "explain": "explanations are not served by this protocol; the page at / shows them",
}


class TfServing:
    """Answers both forms of the protocol, and KServe's V1.

    Args:
        service: Answers.
        metrics: Counts what never reaches the service.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def read(
        self, address: Callable[[], Address], decode: Callable[[ModelDescription], TfRequest], protocol: str
    ) -> TfRequest:
        """Decodes a request for the version that will answer it, and counts it where it cannot be.

        Args:
            address: Reads the model that it is for.
            decode: The codec, with the request.
            protocol: For metrics.

        Raises:
            ShoalError: There is no such version, or it cannot be decoded.
        """
        try:
            model = self.model(address())
            request = decode(model)
        except ShoalError as error:
            self._metrics.record(protocol, "", 0, type(error).__name__, 0.0)
            raise
        infer = request.infer
        infer.model, infer.version, infer.protocol = model.name, model.version, protocol
        return request

    async def infer(self, request: TfRequest, request_id: str, deadline: Deadline | None) -> InferResponse:
        """Answers one request.

        Args:
            request: It.
            request_id: The name it goes by in logs.
            deadline: When its answer is worth nothing any more; None for the server's default.

        Raises:
            ShoalError: It cannot be answered.
        """
        request.infer.request_id, request.infer.deadline = request_id, deadline
        return await self._service.infer(request.infer)

    def model(self, address: Address) -> ModelDescription:
        """The version that would answer.

        Args:
            address: The model and, where it says so, its version.

        Raises:
            InvalidInput: It names a label that versions do not have here.
            ModelNotFound: There is no such model or version.
            ModelNotReady: It is not loaded.
        """
        return self._service.describe(address.name, self._version(address))

    def states(self, address: Address) -> list[VersionState]:
        """The state of a model's versions.

        Args:
            address: The model and, where only one of its versions is asked for, that.

        Raises:
            InvalidInput: It names a label that versions do not have here.
            ModelNotFound: There is no such model or version.
        """
        version = self._version(address)
        found = [
            state for state in self._service.index() if state.name == address.name and version in (None, state.version)
        ]
        if not found:
            which = f"'{address.name[:100]}'" + ("" if version is None else f" version {version}")
            raise ModelNotFound(f"expected a model that is here, received {which}; GET /v1/models lists them")
        return found

    def ready(self, address: Address) -> bool:
        """Whether a model can answer.

        Args:
            address: The model and, where it says so, its version.

        Raises:
            InvalidInput: It names a label that versions do not have here.
        """
        try:
            self.model(address)
        except (ModelNotFound, Unavailable):
            return False
        return not self._service.draining

    def names(self) -> list[str]:
        """The models that have a version that is loaded."""
        return sorted({state.name for state in self._service.index() if state.state == "ready"})

    def _version(self, address: Address) -> int | None:
        if not address.label:
            return address.version
        if address.label != LATEST:
            raise InvalidInput(
                f"expected the version's number or the label '{LATEST}', received the label {address.label!r:.60}"
            )
        ready = [s.version for s in self._service.index() if (s.name, s.state) == (address.name, "ready")]
        return max(ready, default=None)
