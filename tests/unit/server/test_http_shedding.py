import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from server.congestion import Congestion
from server.metrics import Metrics
from server.transports import http_shedding
from server.transports.http_keys import REQUEST_ID
from server.transports.http_shedding import OTHER, PART, PREDICT, SheddingHandler


def request(body: bytes = b"picture", path: str = "/predict", *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


WHOLE = request()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (WHOLE, PREDICT),
        (request(b"", "/predict/cifar10?top_k=3"), PREDICT),
        (WHOLE.replace(b"Content-Length", b"content-LENGTH"), PREDICT),
        (request(b"x", "/predict", "Connection: keep-alive"), PREDICT),
        (WHOLE[:-1], PART),
        (WHOLE + b"x", PART),
        (WHOLE[:30], PART),
        (b"", PART),
        (WHOLE.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"), PART),
        (WHOLE.replace(b": 7", b": seven"), PART),
        (request(b"x", "/predict", "Connection: close"), OTHER),
        (request(b"x", "/predict", "X-Latency-Budget-Ms: 5000"), OTHER),
        (request(b"x", "/predict", "x-request-id: mine"), OTHER),
        (request(b"x", "/predict", "Expect: 100-continue"), OTHER),
        (request(b"x", "/predict", "Upgrade: websocket"), OTHER),
        (request(b"", "/health", method="POST"), OTHER),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", OTHER),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET", PART),
    ],
)
def test_only_whole_plain_prediction_requests_may_be_refused_early(data: bytes, kind: int) -> None:
    assert http_shedding._kind(data) == kind


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split(" ", 2)[1])
        headers = dict(line.lower().split(": ", 1) for line in head.strip().splitlines()[1:])
        return status, headers, await self._reader.readexactly(int(headers["content-length"]))

    async def ask(self, data: bytes) -> int:
        await self.send(data)
        return (await self.answer())[0]


@asynccontextmanager
async def serving(
    congestion: Congestion, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    async def named(request: web.BaseRequest) -> web.StreamResponse:
        request[REQUEST_ID] = "named"  # as the envelope of `server.transports.http` does
        return await handler(request)

    loop, opened = asyncio.get_running_loop(), []
    server = web.Server(named)
    listening = await loop.create_server(
        lambda: SheddingHandler(server, congestion, Metrics(), lambda: None, loop=loop), "127.0.0.1", 0
    )

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        opened.append(writer)
        return Client(reader, writer)

    try:
        yield connect
    finally:
        for writer in opened:
            writer.close()
            await writer.wait_closed()
        listening.close()
        await server.shutdown(1)
        await listening.wait_closed()


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=await request.read())


def fill(congestion: Congestion) -> None:
    while not congestion.full:
        congestion.enter()


def test_a_congested_server_refuses_with_a_problem_and_the_connection_goes_on() -> None:
    async def main() -> None:
        congestion = Congestion(0.2)
        async with serving(congestion, echo) as connect:
            client = await connect()
            assert await client.ask(WHOLE) == 200
            fill(congestion)
            await client.send(WHOLE)
            status, headers, body = await client.answer()
            assert status == 429
            assert headers["retry-after"] == "1"
            assert headers["content-type"] == "application/problem+json"
            assert headers["x-request-id"].encode() in body
            congestion.leave(0.0, answered=True)
            assert await client.ask(WHOLE) == 200

    asyncio.run(main())


def test_what_is_not_plain_prediction_gets_through() -> None:
    async def main() -> None:
        congestion = Congestion(0.2)
        fill(congestion)
        async with serving(congestion, echo) as connect:
            assert await (await connect()).ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") == 200
            assert await (await connect()).ask(request(b"x", "/predict", "X-Latency-Budget-Ms: 5000")) == 200

    asyncio.run(main())


def test_a_request_in_parts_is_never_taken_for_two() -> None:
    async def main() -> None:
        congestion = Congestion(0.2)
        async with serving(congestion, echo) as connect:
            client = await connect()
            await client.send(WHOLE[:-3])
            await asyncio.sleep(0.01)  # two writes at once would arrive as one
            fill(congestion)
            # what follows looks like the beginning of a request, and is the rest of a body
            assert await client.ask(WHOLE[-3:]) == 200

    asyncio.run(main())


def test_a_body_that_looks_like_a_request_is_a_body() -> None:
    async def main() -> None:
        congestion = Congestion(0.2)
        async with serving(congestion, echo) as connect:
            client = await connect()
            second = request(WHOLE)
            assert await client.ask(WHOLE + second.removesuffix(WHOLE)) == 200
            fill(congestion)
            await client.send(WHOLE)
            status, _, body = await client.answer()
            assert (status, body) == (200, WHOLE)

    asyncio.run(main())


def test_every_way_a_request_can_end_is_counted_once() -> None:
    async def main() -> None:
        congestion, entered = Congestion(0.2), asyncio.Event()

        async def hang(_: web.BaseRequest) -> web.StreamResponse:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with serving(congestion, echo) as connect:
            client = await connect()
            assert await client.ask(WHOLE) == 200
            assert await client.ask(WHOLE) == 200
            assert congestion.under_way == 0
            assert await (await connect()).ask(b"nonsense\r\n\r\n") == 400
        async with serving(congestion, hang) as connect:
            client = await connect()
            await client.send(WHOLE)
            await entered.wait()
            assert congestion.under_way == 1
            client._writer.close()
        assert congestion.under_way == 0

    asyncio.run(main())
