"""The hot path where senders matter: it answers only whom the guard knows already, everybody else is for aiohttp."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from server.auth import Authenticator, Caller, Credentials, caller_name
from server.auth_guard import Guard
from server.errors import Unauthenticated
from server.predictions.answers import Lane
from server.predictions.blocks import Group, pack_rows, unpack, unpack_rows
from server.predictions.observer import Observer
from server.rate_limit import Limits, RateTable
from server.security import Security
from server.tensors import InferRequest, InferResponse
from tests.unit.server.prediction_factory import GREY
from tests.unit.server.test_http_connection import Bench, post, run, until

PICTURE = b"\x05"
AS_ALICE = "Authorization: Bearer alice"


class Tokens:
    """Whose token it is stands in it; `metrics` may not predict."""

    async def check(self, token: str) -> Caller:
        if token == "wrong":
            raise Unauthenticated("expected another")
        return Caller(f"token:{token}", frozenset({"metrics" if token == "metrics" else "predict"}))


def guarded(*tokens: str, limits: Limits | None = None) -> tuple[Authenticator, Guard]:
    """A guard that knows these tokens already."""
    authenticator = Authenticator(None, Tokens())

    async def see_all() -> None:
        for token in tokens:
            await authenticator.identify(Credentials(f"Bearer {token}"))

    asyncio.run(see_all())
    return authenticator, Guard(authenticator, limits)


def with_guard(guard: Guard, check: Callable[[Bench], Coroutine[None, None, None]]) -> None:
    async def whole(on: Bench) -> None:
        on.doors.security = Security(guard)
        await check(on)

    run(whole)


def test_who_is_known_is_answered_at_once_and_the_work_knows_who_it_is_for() -> None:
    _, guard = guarded("alice")

    async def check(on: Bench) -> None:
        on.service.free.set()
        names: list[str] = []
        answer = on.service.infer

        async def infer(request: InferRequest) -> InferResponse:
            names.append(caller_name.get())
            return await answer(request)

        on.service.infer = infer  # type: ignore[method-assign]
        client = await on.client()
        for _ in range(2):
            client.send(post(PICTURE, "/predict", AS_ALICE))
            assert (await client.answer())[0] == 200
        assert on.slow == []
        assert names == ["token:alice"] * 2

    with_guard(guard, check)


@pytest.mark.parametrize(
    "headers", [(), ("Authorization: Bearer bob",), ("X-API-Key: shoal_x",), ("Authorization: x",)]
)
def test_everybody_else_is_for_aiohttp(headers: tuple[str, ...]) -> None:
    _, guard = guarded("alice")

    async def check(on: Bench) -> None:
        client = await on.client()
        client.send(post(PICTURE, "/predict", *headers))
        await client.answer()
        assert (on.slow, on.service.began) == (["/predict"], [])

    with_guard(guard, check)


def test_who_is_known_but_may_not_predict_is_for_aiohttp() -> None:
    _, guard = guarded("metrics")

    async def check(on: Bench) -> None:
        client = await on.client()
        client.send(post(PICTURE, "/predict", "Authorization: Bearer metrics"))
        await client.answer()
        assert on.slow == ["/predict"]

    with_guard(guard, check)


def test_who_is_forgotten_while_the_body_comes_is_for_aiohttp_with_the_whole_of_it() -> None:
    authenticator, guard = guarded("alice")

    async def check(on: Bench) -> None:
        client = await on.client()
        whole = post(b"\x05" * 100, "/predict", AS_ALICE)
        client.send(whole[:-50])
        await until(lambda: on.doors.running == 1)
        authenticator.forget()
        client.send(whole[-50:])
        assert (await client.answer())[2] == b"\x05" * 100
        assert on.slow == ["/predict"]

    with_guard(guard, check)


def test_too_many_are_refused_on_the_hot_path_too() -> None:
    table = RateTable.create()
    _, guard = guarded("alice", "bob", limits=Limits(1, 0, table, lambda: 1_000_000))

    async def check(on: Bench) -> None:
        on.service.free.set()
        client = await on.client()
        answers = []
        for name in ("alice", "alice", "bob"):
            client.send(post(PICTURE, "/predict", f"Authorization: Bearer {name}"))
            answers.append(await client.answer())
        assert [status for status, _, _ in answers] == [200, 429, 200]
        _, headers, body = answers[1]
        assert headers["retry-after"] == "1"
        assert b'"type": "urn:shoal:rate-limited"' in body
        assert on.slow == []
        assert b'outcome="RateLimited",protocol="http"' in on.doors.metrics.render()

    with_guard(guard, check)
    table.close()


def test_so_many_at_a_time_are_under_way_of_one_client() -> None:
    _, guard = guarded("alice", "bob", limits=Limits(0, 1, None))

    async def check(on: Bench) -> None:
        first, second, other = await on.client(), await on.client(), await on.client()
        first.send(post(PICTURE, "/predict", AS_ALICE))
        await until(lambda: len(on.service.began) == 1)
        second.send(post(PICTURE, "/predict", AS_ALICE))
        assert (await second.answer())[0] == 429
        other.send(post(PICTURE, "/predict", "Authorization: Bearer bob"))
        await until(lambda: len(on.service.began) == 2)
        on.service.free.set()
        assert [(await client.answer())[0] for client in (first, other)] == [200, 200]
        second.send(post(PICTURE, "/predict", AS_ALICE))
        assert (await second.answer())[0] == 200

    with_guard(guard, check)


def test_who_hangs_up_no_longer_counts() -> None:
    _, guard = guarded("alice", limits=Limits(0, 1, None))

    async def check(on: Bench) -> None:
        gone, next_one = await on.client(), await on.client()
        gone.send(post(PICTURE, "/predict", AS_ALICE))
        await until(lambda: len(on.service.began) == 1)
        gone.writer.close()
        await until(lambda: on.service.cancelled == 1)
        on.service.free.set()
        next_one.send(post(PICTURE, "/predict", AS_ALICE))
        assert (await next_one.answer())[0] == 200

    with_guard(guard, check)


def test_without_authentication_an_address_is_a_client() -> None:
    guard = Guard(None, Limits(0, 1, None))

    async def check(on: Bench) -> None:
        first, second = await on.client(), await on.client()
        first.send(post(PICTURE))
        await until(lambda: len(on.service.began) == 1)
        second.send(post(PICTURE))
        assert (await second.answer())[0] == 429
        on.service.free.set()
        assert (await first.answer())[0] == 200
        assert on.slow == []

    with_guard(guard, check)


def test_pages_of_other_origins_are_for_aiohttp_which_has_the_headers_for_them() -> None:
    async def check(on: Bench) -> None:
        on.service.free.set()
        on.doors.security = Security(origins=("https://page.example",))
        client = await on.client()
        client.send(post(PICTURE))
        assert (await client.answer())[0] == 200
        assert on.slow == []
        client.send(post(PICTURE, "/predict", "Origin: https://page.example"))
        await client.answer()
        assert on.slow == ["/predict"]

    run(check)


def test_the_prediction_log_hears_who_asked() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.clients: list[str] = []

        def keep(self, lane: Lane, group: Group) -> None:
            (block,) = unpack(pack_rows(group, 0, 0))
            self.clients += unpack_rows(block.payload).clients

        def keep_late(self, lane: Lane, answers: Sequence[Any]) -> None:
            pass

        def lose(self, rows: int, reason: str) -> None:
            pass

        def flush(self) -> None:
            pass

        def finish(self, within_s: float) -> None:
            pass

    keeper = Keeper()
    observer = Observer(keeper, None)
    for name in ("token:alice", ""):
        context = contextvars.copy_context()
        context.run(caller_name.set, name)
        context.run(observer.answered, InferRequest(), GREY, [PICTURE], {}, {}, 0.0)
    observer._tick()
    assert keeper.clients == ["token:alice", ""]
