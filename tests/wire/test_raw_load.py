"""The load generator's own HTTP/2 against gRPC's own server: a measurement is no better than what makes the load."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from benchmarks.grpc_raw import raw_closed_loop

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
