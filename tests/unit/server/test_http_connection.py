"""One connection, hot and not: real sockets, aiohttp's own handler behind, and a service that answers when told to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from aiohttp import web

from server.congestion import Congestion
from server.errors import InferenceFailed, Overloaded
from server.metrics import Metrics
from server.tensors import InferRequest, InferResponse, Timing
from server.transports.http_connection import HELD_BYTES, Doors, HotHandler
from server.transports.http_keys import REQUEST_ID
from server.transports.v2 import V2


@dataclass
class Service:
    """Answers with the first byte of the picture as the class."""

    free: asyncio.Event
    alone: bool = True
    draining: bool = False
    error: Exception | None = None
    began: list[bytes] = field(default_factory=list)
    cancelled: int = 0

    async def infer(self, request: InferRequest) -> InferResponse:
        picture = bytes(request.images[0])
        self.began.append(picture)
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        probabilities = np.eye(256, dtype=np.float32)[[picture[0]]]
        return InferResponse("m", 1, "float32", {"probabilities": probabilities}, Timing(1, 2, 3), ())


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.strip().splitlines()[1:])
        return int(head.split(" ", 2)[1]), headers, await self.reader.readexactly(int(headers["content-length"]))


@dataclass
class Bench:
    service: Service
    doors: Doors
    congestion: Congestion
    connect: Callable[[], object]
    slow: list[str]
    handlers: list[HotHandler]

    async def client(self) -> Client:
        return await self.connect()  # type: ignore[misc, no-any-return]


def post(picture: bytes, path: str = "/predict", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: image/png", f"Content-Length: {len(picture)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + picture


@asynccontextmanager
async def bench(keepalive_timeout: float = 60.0) -> AsyncIterator[Bench]:
    service, slow, opened, handlers = Service(asyncio.Event()), [], [], []
    metrics, congestion = Metrics(), Congestion(0.2)
    doors = Doors(service, metrics, V2(service, metrics), 1 << 20)  # type: ignore[arg-type]

    async def aside(request: web.BaseRequest) -> web.StreamResponse:
        request[REQUEST_ID] = "slow"
        slow.append(request.path)
        return web.Response(body=await request.read())

    loop, server = asyncio.get_running_loop(), web.Server(aside)

    def handler() -> HotHandler:
        handlers.append(
            HotHandler(server, congestion, doors, lambda: None, loop=loop, keepalive_timeout=keepalive_timeout)
        )
        return handlers[-1]

    listening = await loop.create_server(handler, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def connect() -> Client:
        opened.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return opened[-1]

    try:
        yield Bench(service, doors, congestion, connect, slow, handlers)
    finally:
        service.free.set()
        for client in opened:
            client.writer.close()
        listening.close()
        await server.shutdown(1)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0)


def run(check: Callable[[Bench], object], **options: float) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), bench(**options) as made:
            await check(made)  # type: ignore[misc]
            assert made.doors.running == 0
            assert made.congestion.under_way == 0

    asyncio.run(whole())


def test_hot_requests_are_answered_in_turn_on_one_connection() -> None:
    async def check(on: Bench) -> None:
        on.service.free.set()
        client = await on.client()
        for picture in (b"\x05", b"\x07"):
            client.send(post(picture))
            status, headers, body = await client.answer()
            assert (status, headers["server"], headers["content-type"]) == (200, "shoal", "application/json")
            assert b'"predictions":[%d]' % picture[0] in body
            assert headers["server-timing"].startswith("decode;dur=0.001, queue;dur=0.002, infer;dur=0.003, total;dur=")
        assert on.slow == []

    run(check)


def test_what_comes_while_one_is_under_way_waits_and_keeps_its_order() -> None:
    async def check(on: Bench) -> None:
        client = await on.client()
        client.send(post(b"\x01"))
        await until(lambda: len(on.service.began) == 1)
        client.send(post(b"\x02"))
        client.send(b"GET /aside HTTP/1.1\r\nHost: x\r\n\r\n" + post(b"\x03")[:20])  # one in the middle of its head
        await asyncio.sleep(0.01)
        assert (len(on.service.began), on.slow) == (1, [])
        on.service.free.set()
        answers = [await client.answer() for _ in range(2)]
        assert [b'"predictions":[1]' in answers[0][2], answers[1][0]] == [True, 200]
        client.send(post(b"\x03")[20:])
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 200
        assert [*on.service.began, *on.slow] == [b"\x01", "/predict", "/aside", "/predict"]

    run(check)


def test_aiohttp_and_the_hot_path_take_turns_on_one_connection() -> None:
    async def check(on: Bench) -> None:
        on.service.free.set()
        client = await on.client()
        for _ in range(3):
            client.send(b"GET /aside HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer())[0] == 200
            client.send(post(b"\x09"))
            assert (await client.answer())[0] == 200
        assert (len(on.slow), len(on.service.began)) == (3, 3)

    run(check)


@pytest.mark.parametrize("cuts", [(-5,), (-1,), (-4, -2), (-3, 7)])
def test_a_body_that_comes_in_parts_is_waited_for(cuts: tuple[int, ...]) -> None:
    async def check(on: Bench) -> None:
        on.service.free.set()
        client = await on.client()
        both = post(b"\x01" * 5) + post(b"\x02" * 5)
        first = len(both) // 2
        places = [0, *(first + cut for cut in cuts), len(both)]
        for begin, end in pairwise(places):
            client.send(both[begin:end])
            await asyncio.sleep(0.005)
        assert [b'"predictions":[1]' in (await client.answer())[2], (await client.answer())[0]] == [True, 200]
        assert on.service.began[0] == b"\x01" * 5

    run(check)


def test_a_client_that_goes_away_in_the_middle_of_a_body_leaves_nothing() -> None:
    async def check(on: Bench) -> None:
        client = await on.client()
        client.send(post(b"\x01" * 9)[:-1])
        await until(lambda: bool(on.handlers) and on.handlers[0]._missing_bytes == 1)
        client.writer.transport.abort()
        await until(lambda: on.handlers[0].transport is None)
        assert on.service.began == []

    run(check)


def test_a_client_that_goes_away_cancels_its_request() -> None:
    async def check(on: Bench) -> None:
        for wait in (False, True):  # before its task has taken a step, and in the middle
            client = await on.client()
            client.send(post(b"\x01"))
            if wait:
                await until(lambda: bool(on.service.began))
            client.writer.transport.abort()
            await until(lambda: all(handler.transport is None for handler in on.handlers))
        await until(lambda: on.service.cancelled == len(on.service.began))

    run(check)


def test_errors_have_the_form_of_their_protocol() -> None:
    async def check(on: Bench) -> None:
        on.service.free.set()
        client = await on.client()
        on.service.error = InferenceFailed("no luck")
        client.send(post(b"\x01", "/predict", "X-Request-Id: mine"))
        status, headers, body = await client.answer()
        assert (status, headers["content-type"], headers["x-request-id"]) == (500, "application/problem+json", "mine")
        assert b'"request_id": "mine"' in body
        on.service.error = Overloaded("too much", retry_after_s=1.2)
        client.send(post(b"\x01", "/v2/models/m/infer", "Inference-Header-Content-Length: 0"))
        status, headers, body = await client.answer()
        assert (status, headers["retry-after"], body) == (429, "2", b'{"error":"too much"}')

    run(check)


@pytest.mark.parametrize(
    ("path", "said"), [("/predict", b'"status":429'), ("/v2/models/m/infer", b'{"error":"overloaded')]
)
def test_a_congested_server_refuses_both_protocols_unless_they_bring_a_budget(path: str, said: bytes) -> None:
    async def check(on: Bench) -> None:
        on.service.free.set()
        client = await on.client()
        on.congestion.limit = 0
        client.send(post(b"\x01", path, "X-Request-Id: mine"))
        status, headers, body = await client.answer()
        assert (status, headers["x-request-id"], said in body) == (429, "mine", True)
        assert on.service.began == []
        header = ("Inference-Header-Content-Length: 0",) if path.startswith("/v2") else ()
        client.send(post(b"\x01", path, "X-Latency-Budget-Ms: 5000", *header))
        assert (await client.answer())[0] == 200

    run(check)


def test_a_stopping_server_closes_with_the_answer() -> None:
    async def check(on: Bench) -> None:
        client = await on.client()
        client.send(post(b"\x01"))
        await until(lambda: len(on.service.began) == 1)
        on.service.draining = True
        on.service.free.set()
        _, headers, _ = await client.answer()
        assert headers["connection"] == "close"
        assert await client.reader.read() == b""

    run(check)


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async def check(on: Bench) -> None:
        client, idle, sending = await on.client(), await on.client(), await on.client()
        await until(lambda: len(on.handlers) == 3)
        on.service.free.set()
        for one, handler in zip((client, idle, sending), on.handlers, strict=True):
            one.send(post(b"\x01"))
            connected_until_s = handler._next_keepalive_close_time
            await one.answer()
            assert handler._next_keepalive_close_time > connected_until_s
        on.service.free.clear()
        client.send(post(b"\x02"))
        sending.send(post(b"\x03")[:-1])
        await until(lambda: len(on.service.began) == 4)
        assert await idle.reader.read() == b""  # its time is up, and so would be the other's
        await asyncio.sleep(0.05)
        on.service.free.set()
        sending.send(b"\x03")
        assert [(await one.answer())[0] for one in (client, sending)] == [200, 200]

    run(check, keepalive_timeout=0.05)


def test_a_client_that_pipelines_without_end_is_not_read_without_end() -> None:
    async def check(on: Bench) -> None:
        client = await on.client()
        client.send(post(b"\x01"))
        await until(lambda: len(on.service.began) == 1)
        client.send(post(b"\x02" * 300_000) * 20)
        handler = on.handlers[0]
        await until(lambda: len(handler._held) > HELD_BYTES)
        held = len(handler._held)
        await asyncio.sleep(0.01)
        assert len(handler._held) == held < 6_000_000 / 2
        on.service.free.set()
        for _ in range(21):
            assert (await client.answer())[0] == 200

    run(check)


def test_a_client_that_does_not_read_its_answers_is_aiohttps_to_slow_down() -> None:
    async def check(on: Bench) -> None:
        client = await on.client()
        await until(lambda: bool(on.handlers))
        on.handlers[0].pause_writing()
        client.send(post(b"\x01"))
        await until(lambda: on.slow == ["/predict"])
        on.handlers[0].resume_writing()
        assert (await client.answer())[0] == 200
        assert on.service.began == []

    run(check)


def test_a_body_over_the_limit_is_aiohttps_to_refuse() -> None:
    async def check(on: Bench) -> None:
        on.doors.body_limit_bytes = 3
        client = await on.client()
        client.send(post(b"1234"))
        assert (await client.answer())[2] == b"1234"
        assert (on.slow, on.service.began) == (["/predict"], [])

    run(check)
