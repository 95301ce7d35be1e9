"""The supervisor's end of a nursery: a worker goes to who asked for it, and nobody waits for one that cannot come."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from server.errors import StartupError
from server.nursery import Nursery
from server.settings import Settings
from server.supervisor import Supervisor

Processes = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def process() -> Iterator[Processes]:
    """Returns a function that starts a process to stand for a nursery or a worker."""
    begun: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(["sleep", "60"]))
        return begun[-1]

    yield start
    for one in begun:
        one.kill()
        one.wait()


def told(end: socket.socket, worker: "subprocess.Popen[bytes]", number: int) -> None:
    end.send(json.dumps({"op": "born", "pid": worker.pid, "pidfd": number}).encode())


def run(process: Processes, test: Callable[[Nursery, socket.socket, int], Awaitable[None]]) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    body = process()

    async def main() -> None:
        nursery = Nursery(here, body.pid)
        nursery.listen()
        await test(nursery, there, body.pid)

    with here, there:
        asyncio.run(main())


def test_a_worker_whose_asker_has_gone_is_ended_and_not_given_to_the_next(process: Processes) -> None:
    unwanted, wanted = process(), process()

    async def test(nursery: Nursery, end: socket.socket, _: int) -> None:
        gone = asyncio.ensure_future(nursery.bear(0, 1, []))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        asked = asyncio.ensure_future(nursery.bear(1, 1, []))
        await asyncio.sleep(0)
        told(end, unwanted, 5)
        told(end, wanted, 6)
        child = await asked
        assert child.pid == wanted.pid
        os.close(child.pidfd)

    run(process, test)
    assert unwanted.wait(timeout=10) == -signal.SIGKILL
    assert wanted.poll() is None


def test_nobody_waits_for_a_worker_of_a_nursery_that_is_closed(process: Processes) -> None:
    async def test(nursery: Nursery, _: socket.socket, body: int) -> None:
        asked = asyncio.ensure_future(nursery.bear(0, 1, []))
        await asyncio.sleep(0)
        os.kill(body, signal.SIGKILL)
        await nursery.close()
        with pytest.raises(StartupError, match="forked from has ended"):
            await asyncio.wait_for(asked, 10)

    run(process, test)


def test_nobody_waits_for_a_worker_of_a_nursery_that_has_ended(process: Processes) -> None:
    async def test(nursery: Nursery, end: socket.socket, _: int) -> None:
        asked = asyncio.ensure_future(nursery.bear(0, 1, []))
        await asyncio.sleep(0)
        end.close()
        with pytest.raises(StartupError, match="forked from has ended"):
            await asyncio.wait_for(asked, 10)
        assert nursery.over
        with pytest.raises(StartupError, match="is gone"):
            await nursery.bear(0, 1, [])

    run(process, test)


def test_workers_that_end_with_their_nursery_share_the_next_one(
    process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Nursery] = []
    ends: list[socket.socket] = []

    def start() -> Nursery:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends.append(there)
        started.append(Nursery(here, process().pid))
        return started[-1]

    monkeypatch.setattr(Nursery, "start", start)

    async def test(nursery: Nursery, end: socket.socket, body: int) -> None:
        with socket.socket() as http:
            given: dict[str, Any] = {}
            supervisor = Supervisor(Settings(**given), workers=2, http=http, grpc_port=1, nursery=nursery)
            asked = asyncio.ensure_future(nursery.bear(0, 1, []))
            await asyncio.sleep(0)
            os.kill(body, signal.SIGKILL)
            end.close()
            with pytest.raises(StartupError):
                await asked
            assert nursery.over
            found = await asyncio.gather(*(supervisor._living_nursery() for _ in range(2)))
        assert found == [started[0]] * 2
        for begun, other in zip(started, ends, strict=True):
            os.kill(begun._pid, signal.SIGKILL)
            await begun.close()
            other.close()

    run(process, test)
    assert len(started) == 1
