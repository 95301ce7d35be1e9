import asyncio
from collections.abc import AsyncIterator

import pytest

from server.transports.grpc_streams import AnswerStream
from tests import virtual_time


async def numbers(*values: int) -> AsyncIterator[int]:
    for value in values:
        yield value


async def wait(seconds: int) -> int:
    await asyncio.sleep(seconds)
    return seconds


@pytest.mark.parametrize(("in_order", "expected"), [(True, [3, 1, 2]), (False, [1, 2, 3])])
def test_answers_come_in_order_or_as_they_are_done(in_order: bool, expected: list[int]) -> None:  # noqa: FBT001
    async def main() -> list[int]:
        stream: AnswerStream[int, int] = AnswerStream(wait, 8, in_order=in_order)
        return [answer async for answer in stream.answer_all(numbers(3, 1, 2))]

    assert virtual_time.run(main()) == expected


@pytest.mark.parametrize("in_order", [True, False])
def test_no_more_than_the_window_is_read_ahead_of_the_answers(in_order: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        read: list[int] = []

        async def requests() -> AsyncIterator[int]:
            for value in range(10):
                read.append(value)
                yield 1

        stream: AnswerStream[int, int] = AnswerStream(wait, 3, in_order=in_order)
        answers = stream.answer_all(requests())
        await anext(answers)
        await asyncio.sleep(5)
        assert len(read) == 3, "an answer counts until the next one is asked for"
        assert len([answer async for answer in answers]) == 9

    virtual_time.run(main())


@pytest.mark.parametrize("in_order", [True, False])
def test_a_stop_answers_what_was_read(in_order: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        async def endless() -> AsyncIterator[int]:
            yield 2
            yield 1
            await asyncio.Event().wait()

        stream: AnswerStream[int, int] = AnswerStream(wait, 8, in_order=in_order)
        asyncio.get_running_loop().call_later(0.5, stream.stop_reading)
        assert sorted([answer async for answer in stream.answer_all(endless())]) == [1, 2]
        assert stream.cut_short

    virtual_time.run(main())


def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    async def main() -> None:
        cancelled = []

        async def answer(seconds: int) -> int:
            try:
                return await wait(seconds)
            except asyncio.CancelledError:
                cancelled.append(seconds)
                raise

        stream: AnswerStream[int, int] = AnswerStream(answer, 8, in_order=True)
        answers = stream.answer_all(numbers(1, 50, 60))
        assert await anext(answers) == 1
        await answers.aclose()  # type: ignore[attr-defined]
        assert sorted(cancelled) == [50, 60]
        assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main())
