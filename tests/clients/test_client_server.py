"""Every way of calling, against a real server."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image
from shoal_client import (
    Answer,
    AsyncGrpcClient,
    AsyncHttpClient,
    ClientSettings,
    DeadlineExceeded,
    GrpcClient,
    HttpClient,
    InvalidInput,
    ModelNotFound,
    PayloadTooLarge,
    RetryPolicy,
    ShoalError,
    Unavailable,
)

from benchmarks.server_process import Address

pytestmark = pytest.mark.slow  # each starts from a server process
Digits = list[tuple[bytes, str]]
NO_REPEATS = ClientSettings(retry=RetryPolicy(attempts=1))


class Awaited:
    """An asynchronous client, called as if it were synchronous, so that one test serves both."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._make(make))

    async def _make(self, make: Callable[[], Any]) -> Any:
        return make()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made = method(*arguments, **options)
            if isinstance(made, AsyncIterator):
                return self._iterate(made)
            return self._runner.run(made)

        return call

    def _iterate(self, made: Any) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(made, None)

        try:
            while (value := self._runner.run(step())) is not None:
                yield value
        finally:
            self._runner.run(made.aclose())


def open_client(kind: str, server: Address, settings: ClientSettings | None = None) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "grpc": lambda: GrpcClient(server.grpc, settings=settings),
        "http": lambda: HttpClient(server.http, settings=settings),
        "grpc-async": lambda: Awaited(lambda: AsyncGrpcClient(server.grpc, settings=settings)),
        "http-async": lambda: Awaited(lambda: AsyncHttpClient(server.http, settings=settings)),
    }
    return makers[kind]()


@pytest.fixture(params=["grpc", "http", "grpc-async", "http-async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(kind: str, server: Address) -> Iterator[Any]:
    with open_client(kind, server) as made:
        yield made


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("L"))


def test_one_picture(client: Any, seven: bytes) -> None:
    answer = client.classify(seven, top_k=3)
    assert answer.best.label == "7"
    assert answer.best.index == 7
    scores = [score.probability for score in answer.predictions[0].classes]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert (answer.model, answer.version) == ("digits", 1)
    assert answer.timing.infer_us > 0
    assert answer.request_id


def test_a_path_and_an_array_are_the_same_picture(client: Any, root: Path, digits: Digits) -> None:
    assert client.classify(root / "docs" / "examples" / "seven.png").best.label == "7"
    file, label = digits[0]
    by_file, by_pixels = client.classify(file), client.classify(pixels_of(file))
    assert by_file.best.label == by_pixels.best.label == label
    assert by_file.best.probability == pytest.approx(by_pixels.best.probability, abs=1e-5)


def test_a_batch_keeps_its_order(client: Any, digits: Digits) -> None:
    labels = [label for _, label in digits]
    by_files = client.classify_batch([file for file, _ in digits], top_k=1)
    by_pixels = client.classify_batch([pixels_of(file) for file, _ in digits], top_k=1)
    for answer in (by_files, by_pixels):
        assert [prediction.best.label for prediction in answer.predictions] == labels


def test_many_come_back_in_order(client: Any, digits: Digits) -> None:
    given = [digits[number % len(digits)] for number in range(300)]
    answers = list(client.classify_many((file for file, _ in given), top_k=1))
    assert [answer.best.label for answer in answers] == [label for _, label in given]


def test_a_stream_tells_each_position_once(client: Any, digits: Digits) -> None:
    outcomes = list(client.stream((file for file, _ in digits), top_k=1, window=5))
    assert sorted(outcome.position for outcome in outcomes) == list(range(len(digits)))
    assert all(outcome.unwrap().best.label == digits[outcome.position][1] for outcome in outcomes)


def test_nothing_to_do(client: Any) -> None:
    assert list(client.classify_many([])) == []


def test_one_bad_picture_among_many(client: Any, seven: bytes, tmp_path: Path) -> None:
    given = [seven, b"Dear diary", seven, tmp_path / "missing.png", bytes(2_000_000), seven]
    results = list(client.classify_many(given, return_errors=True, window=4))
    assert [isinstance(result, Answer) for result in results] == [True, False, True, False, False, True]
    assert isinstance(results[1], InvalidInput)
    assert "missing.png" in str(results[3])
    assert isinstance(results[4], PayloadTooLarge)
    with pytest.raises(InvalidInput, match="Dear diary"):
        list(client.classify_many(given))


def test_the_iterator_is_read_only_so_far_as_answers_come(client: Any, seven: bytes) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield seven

    answers = client.classify_many(endless(), window=6)
    for _ in range(10):
        assert next(answers).best.label == "7"
    answers.close()
    assert taken <= 10 + 8 * 6


def test_errors_have_types(client: Any, seven: bytes) -> None:
    with pytest.raises(InvalidInput):
        client.classify(b"Dear diary")
    with pytest.raises(ModelNotFound, match="nope") as raised:
        client.classify(seven, model="nope")
    assert raised.value.request_id
    with pytest.raises(ModelNotFound):
        client.describe(version=9)
    with pytest.raises(PayloadTooLarge):
        client.classify(bytes(2_000_000))
    with pytest.raises(InvalidInput, match="window"):
        client.stream([], window=0)
    with pytest.raises(ModelNotFound):
        list(client.classify_many([seven], model="nope"))


def test_a_model_is_described(client: Any) -> None:
    model = client.describe()
    assert (model.name, model.version, model.architecture) == ("digits", 1, "cnn")
    assert model.labels == tuple("0123456789")
    assert model.input_shape == (-1, 8, 8, 1)
    assert model.metrics


def test_a_deadline_that_cannot_be_kept(client: Any, seven: bytes) -> None:
    with pytest.raises(DeadlineExceeded):
        client.classify(seven, timeout_s=1e-6)
    endless = (seven for _ in iter(int, 1))
    with pytest.raises(DeadlineExceeded, match=r"not everything|eadline"):
        for _ in client.classify_many(endless, timeout_s=0.05, return_errors=True):
            pass


def test_nobody_listens(kind: str) -> None:
    nobody = Address("http://127.0.0.1:9", "127.0.0.1:9", 0)
    with open_client(kind, nobody, NO_REPEATS) as client, pytest.raises(Unavailable):
        client.classify(b"x")
    impatient = ClientSettings(retry=RetryPolicy(attempts=1, base_s=0.01, patience_s=0))
    with open_client(kind, nobody, impatient) as client, pytest.raises(Unavailable):
        list(client.classify_many([b"x"] * 5, return_errors=True))


def test_no_thread_is_left_over(client: Any, digits: Digits) -> None:
    answers = client.classify_many([file for file, _ in digits] * 5)
    next(answers)
    answers.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("shoal-")]


def test_asynchronous_calls_share_a_loop(server: Address, digits: Digits) -> None:
    async def feed() -> AsyncIterator[bytes]:
        for file, _ in digits:
            yield file
            await asyncio.sleep(0)

    async def ask(client: AsyncGrpcClient | AsyncHttpClient) -> list[str]:
        return [answer.best.label async for answer in client.classify_many(feed())]

    async def main() -> list[list[str]]:
        async with AsyncGrpcClient(server.grpc) as by_grpc, AsyncHttpClient(server.http) as by_http:
            return list(await asyncio.gather(ask(by_grpc), ask(by_http), ask(by_grpc)))

    labels = [label for _, label in digits]
    assert asyncio.run(main()) == [labels] * 3


def test_many_threads_share_a_client(server: Address, digits: Digits) -> None:
    labels: list[list[str]] = []
    with GrpcClient(server.grpc) as client:

        def ask() -> None:
            labels.append([answer.best.label for answer in client.classify_many([file for file, _ in digits])])

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert labels == [[label for _, label in digits]] * 6


def test_every_error_is_a_shoal_error(client: Any) -> None:
    with pytest.raises(ShoalError):
        client.classify_batch([])
