"""The load generator's own HTTP/2 against gRPC's own server: a measurement is no better than what makes the load."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from benchmarks.grpc_raw import RawClient, raw_closed_loop

MESSAGE = bytes(range(256)) * 1024  # several frames, and more than the windows that a connection begins with
STUCK_S = 20  # a message that is not sent to its end would be waited for until then
METHOD = "/a.Service/Method"


@asynccontextmanager
async def serving(answer: Callable[[bytes, Any], Awaitable[bytes]]) -> AsyncIterator[str]:
    server = grpc.aio.server()
    methods: dict[str, Any] = {"Method": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(STUCK_S):
            yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.slow
def test_messages_arrive_whole_and_each_answer_counts() -> None:
    received = []

    async def answer(message: bytes, context: Any) -> bytes:
        received.append((message, context.time_remaining()))
        return MESSAGE

    async def run() -> int:
        async with serving(answer) as target:
            one_each = await raw_closed_loop(target, METHOD, MESSAGE, connections=3, seconds=0)
            assert [message for message, _ in received] == [MESSAGE] * 3
            return one_each

    assert asyncio.run(run()) == 3


@pytest.mark.slow
def test_one_connection_makes_many_calls() -> None:
    count = 0

    async def answer(message: bytes, _: Any) -> bytes:
        nonlocal count
        count += message == MESSAGE
        return b"x"

    async def run() -> int:
        async with serving(answer) as target:
            return await raw_closed_loop(target, METHOD, MESSAGE, connections=1, seconds=0.2)

    assert asyncio.run(run()) == count > 1


@pytest.mark.slow
@pytest.mark.parametrize("method", [METHOD, "/a.Service/Other"])
def test_a_call_that_fails_ends_the_measurement(method: str) -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "broken")
        return b""

    async def run() -> None:
        async with serving(answer) as target:
            await raw_closed_loop(target, method, MESSAGE, connections=1, seconds=0)

    with pytest.raises(ConnectionError, match="without a message"):
        asyncio.run(run())


@pytest.mark.slow
def test_a_client_that_waits_gets_each_answer_whole_and_tells_how_long_it_waits() -> None:
    left_s = []

    async def answer(message: bytes, context: Any) -> bytes:
        left_s.append(context.time_remaining())
        return message[::-1]

    def ask(target: str) -> list[bytes]:
        with RawClient(target, METHOD, timeout_s=7) as client:
            return [client.call(message) for message in (MESSAGE, b"ab")]

    async def run() -> list[bytes]:
        async with serving(answer) as target:
            return await asyncio.to_thread(ask, target)

    assert asyncio.run(run()) == [MESSAGE[::-1], b"ba"]
    assert all(0 < left <= 7 for left in left_s)


@pytest.mark.slow
def test_a_client_that_waits_is_told_of_a_failure() -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "broken")
        return b""

    def ask(target: str) -> None:
        with RawClient(target, METHOD, timeout_s=7) as client:
            client.call(MESSAGE)

    async def run() -> None:
        async with serving(answer) as target:
            await asyncio.to_thread(ask, target)

    with pytest.raises(ConnectionError, match="without a message"):
        asyncio.run(run())
