"""The asynchronous HTTP client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import Literal, Self, overload

import httpx

from shoal_client.defaults import HTTP_WINDOW, UNSET, Unset, bearer, check_window
from shoal_client.errors import DeadlineExceeded, ShoalError
from shoal_client.flight import Front, in_order_async
from shoal_client.images import Image, join_images
from shoal_client.options import Options
from shoal_client.results import Answer, ModelInfo, Outcome
from shoal_client.retries import Retries
from shoal_client.settings import ClientSettings
from shoal_client.span import Span
from shoal_client.streaming_async import read_image_async, walk
from shoal_client.wire_http import Request, read_answer, read_failure, read_model, write_describe, write_predict


class AsyncHttpClient:
    """Classifies over HTTP, inside one event loop.

    Args:
        url: The server, such as `http://127.0.0.1:8000`.
        settings: Timeout, retries, token.
        verify: Whether a TLS certificate is checked.
    """

    def __init__(self, url: str, *, settings: ClientSettings | None = None, verify: bool = True) -> None:
        self._settings = settings or ClientSettings()
        self._retries = Retries(self._settings.retry, self._settings.clock)
        self._http = httpx.AsyncClient(
            base_url=url, headers=bearer(self._settings.token), verify=verify, limits=httpx.Limits(max_connections=None)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def classify(
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
        return await self.classify_batch((image,), model=model, version=version, top_k=top_k, timeout_s=timeout_s)

    async def classify_batch(
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
        payloads = [await read_image_async(image) for image in images]
        request = write_predict(join_images(payloads), Options(model, version, top_k))

        async def attempt(left_s: float | None) -> Answer:
            return read_answer(await self._call(request, left_s))

        return await self._retries.run_async(attempt, self._timeout(timeout_s))

    async def describe(
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

        async def attempt(left_s: float | None) -> ModelInfo:
            return read_model(await self._call(request, left_s))

        return await self._retries.run_async(attempt, self._timeout(timeout_s))

    def stream(
        self,
        images: AsyncIterable[Image] | Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = HTTP_WINDOW,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Classifies any number of pictures, one call for each, and tells each as soon as it is known.

        Args:
            images: As in `classify`, from either kind of iterator; read as far as the window has room.
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
        images: AsyncIterable[Image] | Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = HTTP_WINDOW,
        timeout_s: float | None = None,
        return_errors: Literal[False] = False,
    ) -> AsyncGenerator[Answer, None]: ...

    @overload
    def classify_many(
        self,
        images: AsyncIterable[Image] | Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = HTTP_WINDOW,
        timeout_s: float | None = None,
        return_errors: Literal[True],
    ) -> AsyncGenerator[Answer | ShoalError, None]: ...

    def classify_many(
        self,
        images: AsyncIterable[Image] | Iterable[Image],
        *,
        model: str = "",
        version: int | None = None,
        top_k: int = 5,
        window: int = HTTP_WINDOW,
        timeout_s: float | None = None,
        return_errors: bool = False,
    ) -> AsyncGenerator[Answer | ShoalError, None]:
        """Classifies any number of pictures with `window` of them in flight, and answers in their order.

        Args:
            images: As in `classify`, from either kind of iterator; read as far as the window has room.
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
        return in_order_async(outcomes, return_errors=return_errors)

    async def _stream(
        self,
        images: AsyncIterable[Image] | Iterable[Image],
        options: Options,
        window: int,
        timeout_s: float | None,
    ) -> AsyncGenerator[Outcome, None]:
        span = Span(timeout_s, self._settings.timeout_s, self._settings.clock.now_s)
        flying: set[asyncio.Task[Outcome]] = set()
        position, front = 0, Front(window)
        try:
            async for image in walk(images):
                flying.add(asyncio.create_task(self._settle(position, image, options, span.next_s())))
                position += 1
                while len(flying) >= window or not front.lets_in(position):
                    settled, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                    for task in settled:
                        outcome = span.check(task.result())
                        front.settle(outcome.position)
                        yield outcome
            for settling in asyncio.as_completed(flying):
                yield span.check(await settling)
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _settle(self, position: int, image: Image, options: Options, timeout_s: float | None) -> Outcome:
        try:
            answer = await self.classify(
                image, model=options.model, version=options.version, top_k=options.top_k, timeout_s=timeout_s
            )
        except ShoalError as error:
            return Outcome(position, None, error)
        return Outcome(position, answer, None)

    def _timeout(self, timeout_s: float | Unset | None) -> float | None:
        return self._settings.timeout_s if isinstance(timeout_s, Unset) else timeout_s

    async def _call(self, request: Request, left_s: float | None) -> httpx.Response:
        try:
            async with asyncio.timeout(left_s):
                return await self._http.request(**request.arguments(left_s))
        except TimeoutError:
            raise DeadlineExceeded("no answer within the call's time; allow more by timeout_s") from None
        except httpx.HTTPError as error:
            raise read_failure(error) from error
