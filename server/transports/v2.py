"""The Open Inference Protocol's operations, the same behind gRPC and HTTP.

v2_grpc ─messages─┐                          ┌─▶ Service
                  ├─▶ V2: infer, describe … ─┤
v2_http ─JSON─────┘                          └─▶ V2Settings
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from server.deadline import Deadline
from server.errors import InvalidInput, ModelNotFound, ShoalError, Unavailable
from server.metrics import Metrics
from server.service import Service
from server.tensors import InferResponse
from server.transports.codecs.v2 import V2Request, read_version
from server.transports.codecs.v2_describe import (
    EXTENSIONS,
    Document,
    describe_config,
    describe_index,
    describe_model,
    describe_statistics,
)
from server.transports.v2_settings import V2Settings

NAME: Final = "shoal"
_IGNORED: Final = frozenset({"unload_dependents"})  # there are no dependents

Message = TypeVar("Message")


class V2:
    """Answers both forms of the protocol.

    Args:
        service: Answers.
        metrics: Counts what never reaches the service.
        version: This software's.
    """

    def __init__(self, service: Service, metrics: Metrics, version: str = "unknown") -> None:
        self._service = service
        self._metrics = metrics
        self._version = version
        self.settings = V2Settings(alone=service.alone)

    def read(self, decode: Callable[[], V2Request], protocol: str) -> V2Request:
        """Decodes a request, and counts it where it cannot be.

        Args:
            decode: The codec, with the request.
            protocol: For metrics.

        Raises:
            ShoalError: It cannot be decoded.
        """
        try:
            return decode()
        except ShoalError as error:
            self._metrics.record(protocol, "", 0, type(error).__name__, 0.0)
            raise

    async def infer(self, request: V2Request, request_id: str, deadline: Deadline | None) -> InferResponse:
        """Answers one request.

        Args:
            request: It.
            request_id: The name it goes by in logs.
            deadline: The transport's; the request's own time-out may be earlier.

        Raises:
            ShoalError: It cannot be answered.
        """
        infer = request.infer
        infer.request_id, infer.deadline = request_id, deadline
        if request.timeout_s is not None:
            own = Deadline.after(request.timeout_s, now_s=time.monotonic())
            infer.deadline = own if deadline is None else min(own, deadline)
        infer.outputs = tuple(output.name for output in request.outputs)
        response = await self._service.infer(infer)
        self.settings.note(response, request_id)
        return response

    # ---- health and metadata ----

    @property
    def ready(self) -> bool:
        """Whether the server should be sent requests."""
        return self._service.health().ready

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a model can answer.

        Args:
            name: Its name.
            version: Its version; empty for whichever.

        Raises:
            InvalidInput: The version is no number.
            ModelNotFound: There is no such model or version.
        """
        number = read_version(version)
        try:
            self._service.describe(name, number)
        except Unavailable:
            return False
        return not self._service.draining

    def server(self) -> Document:
        """The server's metadata."""
        return {"name": NAME, "version": self._version, "extensions": list(EXTENSIONS)}

    def model(self, name: str, version: str) -> Document:
        """A model's metadata.

        Args:
            name: Its name.
            version: Its version; empty for the one that would answer.

        Raises:
            ShoalError: There is none that could answer.
        """
        number = read_version(version)
        model = self._service.describe(name, number)
        return describe_model(model, [number] if number else self._versions(model.name))

    def config(self, name: str, version: str) -> Document:
        """A model's configuration; arguments and errors as for `model`."""
        model = self._service.describe(name, read_version(version))
        return describe_config(model, self._versions(model.name))

    def statistics(self, name: str, version: str) -> Document:
        """What models have done so far, in this process.

        Args:
            name: The model's; empty for all.
            version: Its version; empty for all.

        Raises:
            ShoalError: There is none.
        """
        return describe_statistics(self._service.statistics(name, read_version(version)))

    def _versions(self, name: str) -> list[int]:
        return [state.version for state in self._service.index() if (state.name, state.state) == (name, "ready")]

    # ---- the repository ----

    def index(self, *, only_ready: bool) -> list[Document]:
        """Every version of every model.

        Args:
            only_ready: Whether versions that cannot answer are left out.
        """
        return describe_index(self._service.index(), only_ready=only_ready)

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Loads a model.

        Args:
            name: Its name.
            parameters: Of the request.

        Raises:
            InvalidInput: A model was sent along, or there is no name.
            ShoalError: It cannot be loaded, or not by request.
        """
        unknown = sorted(parameters.keys() - _IGNORED)
        if unknown:
            raise InvalidInput(
                f"expected no parameters, received {unknown[0]!r:.40};"
                " a model's files and settings are those in its folder"
            )
        await self._service.load(_named(name))

    async def unload(self, name: str) -> None:
        """Lets a model go.

        Args:
            name: Its name.

        Raises:
            ShoalError: It is not loaded, or not unloaded by request.
        """
        await self._service.unload(_named(name))

    def known_model(self, name: str) -> str:
        """The name, where the server has such a model.

        Args:
            name: A model's; empty for all.

        Raises:
            ModelNotFound: It has none.
        """
        if name and all(state.name != name for state in self._service.index()):
            raise ModelNotFound(f"expected one of the models served here, received '{name[:100]}'")
        return name


def _named(name: str) -> str:
    if not name:
        raise InvalidInput("expected a model's name, received none")
    return name
