"""The synchronous HTTP client."""

import queue
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Literal, Self, overload

import httpx

from shoal_client.defaults import HTTP_WINDOW, UNSET, Unset, bearer, check_window
from shoal_client.errors import ShoalError
from shoal_client.flight import Front, in_order
from shoal_client.images import Image, join_images, read_image
from shoal_client.options import Options
from shoal_client.results import Answer, ModelInfo, Outcome
from shoal_client.retries import Retries
from shoal_client.settings import ClientSettings
from shoal_client.span import Span
from shoal_client.wire_http import Request, read_answer, read_failure, read_model, write_describe, write_predict


class HttpClient:
    """Classifies over HTTP, from one thread or several.

    Args:
        url: The server, such as `http://127.0.0.1:8000`.
        settings: Timeout, retries, token. httpx applies the time that is left to each step of an exchange (connecting,
            sending, each wait for bytes), and the server to the whole of its work.
        verify: Whether a TLS certificate is checked.
    """

    def __init__(self, url: str, *, settings: ClientSettings | None = None, verify: bool = True) -> None:
        self._settings = settings or ClientSettings()
        self._retries = Retries(self._settings.retry, self._settings.clock)
        self._http = httpx.Client(
            base_url=url, headers=bearer(self._settings.token), verify=verify, limits=httpx.Limits(max_connections=None)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

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
        request = write_predict(join_images(payloads), Options(model, version, top_k))
        return self._retries.run(lambda left_s: read_answer(self._call(request, left_s)), self._timeout(timeout_s))

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
        request = write_describe(Options(model, version))
        return self._retries.run(lambda left_s: read_model(self._call(request, left_s)), self._timeout(timeout_s))

    def stream(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = HTTP_WINDOW,
        timeout_s: float | None = None,
    ) -> Generator[Outcome, None, None]:
        """Classifies any number of pictures, one call for each, and tells each as soon as it is known.

        Args:
            images: As in `classify`; read as far as the window has room.
            model: The model; "" is the server's default.
            version: Its version; None is the one that the server chooses.
            top_k: How many classes to answer for each.
            window: Pictures in flight at most.
            timeout_s: Seconds for the whole; None sets no limit. Each call has the client's setting, too.

        Yields:
            What became of each picture, in any order; one that fails does not end the rest.

        Raises:
            ShoalError: The call as a whole cannot go on: nobody answers, the time is over, the token is refused.
        """
        check_window(window)
        return self._stream(images, Options(model, version, top_k), window, timeout_s)

    @overload
    def classify_many(
        self,
        images: Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = HTTP_WINDOW,
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
        window: int = HTTP_WINDOW,
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
        window: int = HTTP_WINDOW,
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

    def _stream(
        self, images: Iterable[Image], options: Options, window: int, timeout_s: float | None
    ) -> Generator[Outcome, None, None]:
        span = Span(timeout_s, self._settings.timeout_s, self._settings.clock.now_s)
        settled: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        flying, front = 0, Front(window)
        pool = ThreadPoolExecutor(window, "shoal-http")
        try:
            for position, image in enumerate(images):
                pool.submit(self._settle, position, image, options, span.next_s()).add_done_callback(settled.put)
                flying += 1
                while flying == window or not settled.empty() or not front.lets_in(position + 1):
                    flying -= 1
                    outcome = span.check(settled.get().result())
                    front.settle(outcome.position)
                    yield outcome
            while flying:
                flying -= 1
                yield span.check(settled.get().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _settle(self, position: int, image: Image, options: Options, timeout_s: float | None) -> Outcome:
        try:
            answer = self.classify(
                image, model=options.model, version=options.version, top_k=options.top_k, timeout_s=timeout_s
            )
        except ShoalError as error:
            return Outcome(position, None, error)
        return Outcome(position, answer, None)

    def _timeout(self, timeout_s: float | Unset | None) -> float | None:
        return self._settings.timeout_s if isinstance(timeout_s, Unset) else timeout_s

    def _call(self, request: Request, left_s: float | None) -> httpx.Response:
        try:
            return self._http.request(**request.arguments(left_s))
        except httpx.HTTPError as error:
            raise read_failure(error) from error
