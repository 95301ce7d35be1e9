"""Refusals on real sockets: servers that say no a number of times. The waits are drawn as 0 s, so nothing sleeps."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from shoal_client import (
    Answer,
    AsyncGrpcClient,
    AsyncHttpClient,
    ClientSettings,
    Clock,
    ConnectionLost,
    GrpcClient,
    HttpClient,
    Overloaded,
    RetryPolicy,
    ServerFailed,
    Timing,
    Unavailable,
)
from shoal_client._proto import classifier_pb2 as pb
from shoal_client.wire_grpc import PUSHBACK, REQUEST_ID

ADVICE_S = 0.25


class Waits:
    """A clock that records what it was asked to wait, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.clock = Clock(sleep=self.slept.append, sleep_async=self._sleep_async, draw=lambda: 0.0)

    async def _sleep_async(self, seconds: float) -> None:
        self.slept.append(seconds)

    def settings(self, **policy: Any) -> ClientSettings:
        return ClientSettings(clock=self.clock, retry=RetryPolicy(**policy))


@pytest.fixture
def waits() -> Waits:
    return Waits()


# ---- gRPC ----


def answer_to(request: pb.ClassifyRequest) -> pb.ClassifyResponse:
    label = request.encoded.images[0].decode()
    score = pb.ClassScore(index=1, label=label, probability=1.0)
    return pb.ClassifyResponse(id=request.id, model="fake", version=1, predictions=[pb.Prediction(classes=[score])])


class FakeClassifier(grpc.GenericRpcHandler):
    """Says no to the first `refusals` calls, or a stream's first `refusals` messages."""

    def __init__(self) -> None:
        self.refusals = 0
        self.calls = 0
        self.code = grpc.StatusCode.RESOURCE_EXHAUSTED
        self.metadata: tuple[tuple[str, str], ...] = ((REQUEST_ID, "r"), (PUSHBACK, str(int(ADVICE_S * 1e3))))
        self.breaks_after = 0  # messages after which a stream ends with UNAVAILABLE, while `refusals` last
        self.answered: list[bytes] = []
        self._lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        codec: dict[str, Any] = {
            "request_deserializer": pb.ClassifyRequest.FromString,
            "response_serializer": pb.ClassifyResponse.SerializeToString,
        }
        if details.method.endswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(self.stream, **codec)
        return grpc.unary_unary_rpc_method_handler(self.classify, **codec)

    def refuses(self) -> bool:
        with self._lock:
            self.calls += 1
            self.refusals -= 1
            return self.refusals >= 0

    def classify(self, request: pb.ClassifyRequest, context: grpc.ServicerContext) -> pb.ClassifyResponse:
        if self.refuses():
            context.set_trailing_metadata(self.metadata)
            context.abort(self.code, "not now")
        return answer_to(request)

    def stream(
        self, requests: Iterator[pb.ClassifyRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ClassifyResponse]:
        for count, request in enumerate(requests, 1):
            if self.breaks_after and count > self.breaks_after and self.refuses():
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            if not self.breaks_after and self.refuses():
                yield pb.ClassifyResponse(id=request.id, error=pb.Error(code=self.code.value[0], message="not now"))
                continue
            self.answered.append(request.encoded.images[0])
            yield answer_to(request)


@pytest.fixture
def fake() -> Iterator[tuple[FakeClassifier, str]]:
    handler = FakeClassifier()
    server = grpc.server(ThreadPoolExecutor(16), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


def grpc_sync(target: str, settings: ClientSettings, image: bytes) -> Any:
    with GrpcClient(target, settings=settings) as client:
        return client.classify(image)


def grpc_async(target: str, settings: ClientSettings, image: bytes) -> Any:
    async def ask() -> Any:
        async with AsyncGrpcClient(target, settings=settings) as client:
            return await client.classify(image)

    return asyncio.run(ask())


def many_sync(target: str, settings: ClientSettings, images: list[bytes], window: int = 8) -> list[Any]:
    with GrpcClient(target, settings=settings) as client:
        return list(client.classify_many(images, window=window, return_errors=True, timeout_s=30))


def many_async(target: str, settings: ClientSettings, images: list[bytes], window: int = 8) -> list[Any]:
    async def ask() -> list[Any]:
        async with AsyncGrpcClient(target, settings=settings) as client:
            return [
                result async for result in client.classify_many(images, window=window, return_errors=True, timeout_s=30)
            ]

    return asyncio.run(ask())


Fake = tuple[FakeClassifier, str]
Ask = Callable[..., Any]
grpc_both = pytest.mark.parametrize("ask", [grpc_sync, grpc_async])
many_both = pytest.mark.parametrize("ask", [many_sync, many_async])


@grpc_both
def test_a_refused_call_is_repeated_after_the_servers_advice(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals = 2
    assert ask(fake[1], waits.settings(), b"cat").best.label == "cat"
    assert waits.slept == [ADVICE_S, ADVICE_S]
    assert fake[0].calls == 3


@grpc_both
def test_attempts_end(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals = 99
    with pytest.raises(Overloaded, match="not now") as raised:
        ask(fake[1], waits.settings(attempts=3), b"cat")
    assert raised.value.retry_after_s == ADVICE_S
    assert raised.value.request_id == "r"
    assert fake[0].calls == 3


@grpc_both
def test_a_draining_server_is_asked_again(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals, fake[0].code, fake[0].metadata = 1, grpc.StatusCode.UNAVAILABLE, ((REQUEST_ID, "r"),)
    assert ask(fake[1], waits.settings(), b"cat").best.label == "cat"
    assert fake[0].calls == 2


@grpc_both
def test_what_may_have_been_processed_is_not_repeated(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals, fake[0].code, fake[0].metadata = 1, grpc.StatusCode.UNAVAILABLE, ()
    with pytest.raises(ConnectionLost):
        ask(fake[1], waits.settings(), b"cat")
    assert fake[0].calls == 1


@many_both
def test_refused_pictures_of_a_stream_are_sent_again(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals = 20
    images = [str(number).encode() for number in range(100)]
    results = ask(fake[1], waits.settings(), images)
    assert [result.best.label.encode() for result in results] == images
    assert sorted(fake[0].answered) == sorted(images)


@many_both
def test_broken_streams_are_opened_again_and_nothing_answered_is_sent_twice(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals, fake[0].breaks_after = 6, 3
    images = [str(number).encode() for number in range(200)]
    results = ask(fake[1], waits.settings(), images)
    assert [result.best.label.encode() for result in results] == images
    assert fake[0].refusals < 0
    assert sorted(fake[0].answered) == sorted(images)


@many_both
def test_a_stream_gives_up_on_a_picture_when_patience_ends(fake: Fake, waits: Waits, ask: Ask) -> None:
    fake[0].refusals = 10**9
    results = ask(fake[1], waits.settings(patience_s=0), [b"cat"] * 3, window=1)
    assert [type(result) for result in results] == [Overloaded] * 3


# ---- HTTP ----


class FakeHttp(BaseHTTPRequestHandler):
    """Says no to the first `server.refusals` requests."""

    server: Any

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.budgets_ms.append(self.headers["X-Latency-Budget-Ms"])
        self.server.refusals -= 1
        refused = self.server.refusals >= 0
        if refused and self.server.status == 0:
            self.close_connection = True
            return
        self.send_response(self.server.status if refused else 200)
        if refused:
            self.send_header("Retry-After", "2")
        body = b'{"top": [[{"class": 1, "label": "cat", "probability": 1.0}]], "model": "m", "version": 1}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Is quiet."""


@pytest.fixture
def fake_http() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), FakeHttp)
    server.refusals, server.status, server.budgets_ms = 0, 429, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def http_sync(server: Any, settings: ClientSettings) -> Any:
    with HttpClient(f"http://127.0.0.1:{server.server_port}", settings=settings) as client:
        return client.classify(b"cat")


def http_async(server: Any, settings: ClientSettings) -> Any:
    async def ask() -> Any:
        async with AsyncHttpClient(f"http://127.0.0.1:{server.server_port}", settings=settings) as client:
            return await client.classify(b"cat")

    return asyncio.run(ask())


http_both = pytest.mark.parametrize("ask", [http_sync, http_async])


@http_both
@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_request_is_repeated_after_retry_after(fake_http: Any, waits: Waits, ask: Ask, status: int) -> None:
    fake_http.refusals, fake_http.status = 2, status
    assert ask(fake_http, waits.settings()).best.label == "cat"
    assert waits.slept == [2.0, 2.0]
    budgets_ms = [float(text) for text in fake_http.budgets_ms]
    assert 9_000 < budgets_ms[2] < budgets_ms[1] < budgets_ms[0] <= 10_000


@http_both
def test_no_wait_goes_beyond_the_deadline(fake_http: Any, waits: Waits, ask: Ask) -> None:
    fake_http.refusals = 1
    settings = ClientSettings(clock=waits.clock, timeout_s=1.5)  # and the server advises 2 s
    with pytest.raises(Overloaded):
        ask(fake_http, settings)
    assert waits.slept == []
    assert len(fake_http.budgets_ms) == 1


@http_both
@pytest.mark.parametrize(("status", "error"), [(500, ServerFailed), (0, ConnectionLost)])
def test_what_may_have_been_processed_by_http_is_not_repeated(
    fake_http: Any, waits: Waits, ask: Ask, status: int, error: type[Exception]
) -> None:
    fake_http.refusals, fake_http.status = 1, status
    with pytest.raises(error):
        ask(fake_http, waits.settings())
    assert len(fake_http.budgets_ms) == 1


@http_both
def test_nobody_listens_is_repeated(waits: Waits, ask: Ask) -> None:
    class Nobody:
        server_port = 9

    with pytest.raises(Unavailable, match="could not connect"):
        ask(Nobody(), waits.settings(attempts=3))
    assert len(waits.slept) == 2


# ---- a slow picture ----

QUICK = Answer((), "m", 1, Timing(0, 0, 0))


class Feed:
    """A hundred pictures, of which the first is slow."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for number in range(100):
            self.taken += 1
            yield b"quick" if number else b"slow"


def test_a_slow_picture_by_http_holds_up_what_is_eight_windows_ahead() -> None:
    go, feed = threading.Event(), Feed()

    class Client(HttpClient):
        def classify(self, image: Any, **_: Any) -> Answer:
            assert image == b"quick" or go.wait(20)
            return QUICK

    with Client("http://127.0.0.1:9") as client:
        outcomes = client.stream(feed, window=2)
        told = [next(outcomes) for _ in range(15)]
        rest = threading.Thread(target=lambda: told.extend(outcomes))
        rest.start()
        rest.join(0.1)  # a client that went on would be done by now
        assert feed.taken == 16
        go.set()
        rest.join()
    assert sorted(outcome.position for outcome in told) == list(range(100))


def test_a_slow_picture_holds_up_an_asynchronous_client_too() -> None:
    feed = Feed()

    async def main() -> list[int]:
        go = asyncio.Event()

        class Client(AsyncHttpClient):
            async def classify(self, image: Any, **_: Any) -> Answer:
                if image == b"slow":
                    await go.wait()
                return QUICK

        async with Client("http://127.0.0.1:9") as client:
            outcomes = client.stream(feed, window=2)
            told = [await anext(outcomes) for _ in range(15)]
            rest = asyncio.create_task(anext(outcomes))
            for _ in range(200):
                await asyncio.sleep(0)
            assert feed.taken == 16
            go.set()
            told += [await rest, *[outcome async for outcome in outcomes]]
        return [outcome.position for outcome in told]

    assert sorted(asyncio.run(main())) == list(range(100))


def test_a_fault_in_the_client_does_not_hang_its_caller() -> None:
    class Client(HttpClient):
        def classify(self, image: Any, **_: Any) -> Answer:
            raise RuntimeError("a fault")

    with Client("http://127.0.0.1:9") as client, pytest.raises(RuntimeError, match="a fault"):
        list(client.stream(Feed(), window=2))
