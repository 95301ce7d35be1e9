import asyncio
import threading
import weakref

import pytest

from server.errors import InferenceFailed
from server.own_thread import OwnThread


def raise_(error: BaseException) -> None:
    raise error


def test_calls_run_in_order_on_one_other_thread() -> None:
    async def main() -> None:
        thread = OwnThread("one")
        seen: list[tuple[int, str]] = []
        futures = [thread.call(lambda n=n: seen.append((n, threading.current_thread().name))) for n in range(20)]  # type: ignore[misc]
        await asyncio.gather(*futures)
        assert seen == [(n, "one") for n in range(20)]
        thread.stop()

    asyncio.run(main())


def test_it_is_idle_once_every_call_is_over_the_cancelled_ones_too() -> None:
    async def main() -> None:
        thread, goes_on = OwnThread("one"), threading.Event()
        idle = [thread.idle]
        running, waiting = thread.call(lambda: goes_on.wait(10)), thread.call(lambda: None)
        running.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        idle.append(thread.idle)
        goes_on.set()
        await thread.call(lambda: None)
        idle.append(thread.idle)
        assert idle == [True, False, True]
        thread.stop()

    asyncio.run(main())


def test_an_exception_reaches_the_waiter_and_the_thread_goes_on() -> None:
    async def main() -> None:
        thread = OwnThread("one")
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: raise_(ZeroDivisionError()))
        with pytest.raises(SystemExit):
            await thread.call(lambda: raise_(SystemExit()))
        assert await thread.call(lambda: 5) == 5
        thread.stop()

    asyncio.run(main())


def test_a_call_cancelled_before_its_turn_is_not_made() -> None:
    async def main() -> None:
        thread = OwnThread("one")
        gate, made = threading.Event(), []
        blocked = thread.call(gate.wait)
        cancelled = thread.call(lambda: made.append("cancelled"))
        last = thread.call(lambda: made.append("last"))
        cancelled.cancel()
        gate.set()
        await asyncio.gather(blocked, last)
        assert made == ["last"]
        thread.stop()

    asyncio.run(main())


def test_a_call_cancelled_during_its_turn_disturbs_nothing() -> None:
    async def main() -> None:
        thread = OwnThread("one")
        begun, gate = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            gate.wait()

        running = thread.call(wait)
        await asyncio.to_thread(begun.wait)
        running.cancel()
        gate.set()
        assert await thread.call(lambda: "next") == "next"
        failing = thread.call(lambda: raise_(ValueError()))
        failing.cancel()
        assert await thread.call(lambda: "after") == "after"
        thread.stop()

    asyncio.run(main())


def test_stop_finishes_what_was_asked_for_and_takes_no_more() -> None:
    async def main() -> None:
        thread = OwnThread("one")
        last = thread.call(lambda: "done")
        thread.stop()
        assert thread.stopped
        with pytest.raises(InferenceFailed, match="was closed"):
            thread.call(lambda: None)
        assert await last == "done"

    asyncio.run(main())


def test_a_loop_that_has_gone_ends_the_thread() -> None:
    gate = threading.Event()
    before = threading.active_count()

    async def main() -> None:
        OwnThread("one").call(gate.wait)

    asyncio.run(main())
    gate.set()
    waiter = threading.Event()
    while threading.active_count() > before:
        waiter.wait(0.001)


def test_an_idle_thread_keeps_no_result_alive() -> None:
    class Large:
        pass

    async def main() -> None:
        thread = OwnThread("one")
        large = await thread.call(Large)
        reference = weakref.ref(large)
        del large
        for _ in range(200):  # the thread lets go a moment after it has answered
            if reference() is None:
                break
            await asyncio.sleep(0.01)
        assert reference() is None
        thread.stop()

    asyncio.run(main())


def test_the_thread_does_not_keep_the_process_from_exiting() -> None:
    async def main() -> None:
        thread = OwnThread("daemon")
        found = next(one for one in threading.enumerate() if one.name == "daemon")
        assert found.daemon
        thread.stop()

    asyncio.run(main())
