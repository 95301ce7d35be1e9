"""The synchronous gRPC client."""

import threading
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc

from shoal_client._proto import classifier_pb2 as pb
from shoal_client.defaults import STREAM_WINDOW, SYNC_STREAMS, UNSET, Unset, check_window
from shoal_client.errors import ShoalError
from shoal_client.flight import Flight, in_order
from shoal_client.images import Image, join_images, read_image
from shoal_client.options import Options
from shoal_client.results import Answer, ModelInfo, Outcome
from shoal_client.retries import Retries
from shoal_client.settings import ClientSettings
from shoal_client.streaming_sync import Streaming
from shoal_client.wire_grpc import (
    CHANNEL_OPTIONS,
    CLASSIFY,
    CLASSIFY_STREAM,
    GET_MODEL,
    REQUEST_ID,
    read_answer,
    read_failure,
    read_metadata,
    read_model,
    write_request,
)


class GrpcClient:
    """Classifies over gRPC, from one thread or several.

    Args:
        target: The server, such as `127.0.0.1:8001`.
        credentials: For TLS, such as `grpc.ssl_channel_credentials()`; None speaks plain text.
        settings: Timeout, retries, token.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        self._target = target
        self._credentials = credentials
        self._settings = settings or ClientSettings()
        self._retries = Retries(self._settings.retry, self._settings.clock)
        self._metadata = (("authorization", f"Bearer {self._settings.token}"),) if self._settings.token else ()
        self._lock = threading.Lock()
        self._channels: list[grpc.Channel] = []
        channel = self._channel(0)
        self._classify = channel.unary_unary(
            CLASSIFY, pb.ClassifyRequest.SerializeToString, pb.ClassifyResponse.FromString
        )
        self._get_model = channel.unary_unary(GET_MODEL, pb.GetModelRequest.SerializeToString, pb.Model.FromString)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls under way are cancelled."""
        with self._lock:
            channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()

    def classify(
        self,
        image: Image,
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        timeout_s: float | Unset | None = UNSET,
    ) -> Answer:
        """Classifies one picture.

        Args:
            image: A file's bytes, a Path, or an array `uint8[height, width, channels]` of the model's own size.
            model: The model; "" is the server's default.
            version: Its version; None is the one that the server chooses.
            top_k: How many classes to answer.
            timeout_s: Seconds for the call with its repeats; None sets no limit, nothing takes the client's setting.

        Raises:
            ShoalError: There is no answer; `shoal_client.errors` lists why.
        """
        return self.classify_batch((image,), model=model, version=version, top_k=top_k, timeout_s=timeout_s)

    def classify_batch(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        timeout_s: float | Unset | None = UNSET,
    ) -> Answer:
        """Classifies several pictures in one call: one of them that is bad fails all.

        Args:
            images: As in `classify`; all files, or all arrays of one shape.
            model: The model; "" is the server's default.
            version: Its version; None is the one that the server chooses.
            top_k: How many classes to answer for each.
            timeout_s: As in `classify`.

        Returns:
            The predictions in the order of the pictures.

        Raises:
            ShoalError: There is no answer.
        """
        payloads = [read_image(image) for image in images]
        request = write_request(join_images(payloads), Options(model, version, top_k))

        def attempt(left_s: float | None) -> Answer:
            message, request_id = self._call(self._classify, request, left_s)
            return read_answer(message, request_id)

        return self._retries.run(attempt, self._timeout(timeout_s))

    def describe(
        self, model: str = "", version: int | None = None, *, timeout_s: float | Unset | None = UNSET
    ) -> ModelInfo:
        """Describes a model.

        Args:
            model: The model; "" is the server's default.
            version: Its version; None is the one that answers now.
            timeout_s: As in `classify`.

        Raises:
            ShoalError: There is no answer.
        """
        options = Options(model, version)
        request = pb.GetModelRequest(model=options.model, version=options.version or 0)
        return self._retries.run(
            lambda left_s: read_model(self._call(self._get_model, request, left_s)[0]), self._timeout(timeout_s)
        )

    def stream(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = STREAM_WINDOW,
        timeout_s: float | None = None,
    ) -> Generator[Outcome, None, None]:
        """Classifies any number of pictures over streams, and tells each as soon as it is known.

        Args:
            images: As in `classify`; read as far as the window has room.
            model: The model; "" is the server's default.
            version: Its version; None is the one that the server chooses.
            top_k: How many classes to answer for each.
            window: Pictures in flight at most.
            timeout_s: Seconds for the whole; None sets no limit, and the server then applies its own budget to each
                picture.

        Yields:
            What became of each picture, in any order; one that fails does not end the rest.

        Raises:
            ShoalError: The call as a whole cannot go on: nobody answers, the time is over, the token is refused.
        """
        check_window(window)
        options = Options(model, version, top_k)
        flight = Flight(window, self._settings.retry, self._settings.clock, timeout_s)
        return Streaming(self._open, flight, options, min(window, SYNC_STREAMS)).run(images)

    @overload
    def classify_many(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = STREAM_WINDOW,
        timeout_s: float | None = None,
        return_errors: Literal[False] = False,
    ) -> Iterator[Answer]: ...

    @overload
    def classify_many(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = STREAM_WINDOW,
        timeout_s: float | None = None,
        return_errors: Literal[True],
    ) -> Iterator[Answer | ShoalError]: ...

    def classify_many(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = STREAM_WINDOW,
        timeout_s: float | None = None,
        return_errors: bool = False,
    ) -> Iterator[Answer | ShoalError]:
        """Classifies any number of pictures with `window` of them in flight, and answers in their order.

        Args:
            images: As in `classify`; read as far as the window has room.
            model: The model; "" is the server's default.
            version: Its version; None is the one that the server chooses.
            top_k: How many classes to answer for each.
            window: Pictures in flight at most.
            timeout_s: As in `stream`.
            return_errors: Whether a picture that fails yields its error; otherwise it raises it.

        Yields:
            An answer for each picture, in the order of the pictures.

        Raises:
            ShoalError: A picture failed and `return_errors` is off, or the call as a whole cannot go on.
        """
        outcomes = self.stream(images, model=model, version=version, top_k=top_k, window=window, timeout_s=timeout_s)
        return in_order(outcomes, return_errors=return_errors)

    def _timeout(self, timeout_s: float | Unset | None) -> float | None:
        return self._settings.timeout_s if isinstance(timeout_s, Unset) else timeout_s

    def _call(self, method: Any, request: Any, left_s: float | None) -> tuple[Any, str]:
        try:
            message, call = method.with_call(request, timeout=left_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise read_failure(error) from None
        return message, read_metadata(call.trailing_metadata()).get(REQUEST_ID, "")

    def _channel(self, number: int) -> grpc.Channel:
        with self._lock:
            while len(self._channels) <= number:
                self._channels.append(self._connect())
            return self._channels[number]

    def _connect(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self._target, CHANNEL_OPTIONS)
        return grpc.secure_channel(self._target, self._credentials, CHANNEL_OPTIONS)

    def _open(self, number: int, requests: Iterator[bytes], left_s: float | None) -> Any:
        method: Any = self._channel(number).stream_stream(
            CLASSIFY_STREAM, request_serializer=None, response_deserializer=pb.ClassifyResponse.FromString
        )
        return method(requests, timeout=left_s, metadata=self._metadata)
