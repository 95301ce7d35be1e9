"""A process that has imported what a worker imports, and forks one whenever it is wanted.

    supervisor ──bear + the worker's descriptors──▶ nursery ──fork──▶ worker
               ◀──born: its pid, ended: its code──────┘

Imports are a second of CPU time in a worker's start, and memory that all workers have alike: a fork takes neither
again. The nursery has no event loop, session or connection, nothing that could not be forked. ONNX Runtime is left to
the workers, because importing it starts a thread.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from server.errors import StartupError
from server.links import PACKET_BYTES, Counter, Link, moved_up
from server.rate_limit import TABLE_VARIABLE

# Where one that was started anew finds its end: a variable of its own, not one of Settings.
NURSERY_VARIABLE: Final = "SHOALNURSERY"
WORKER_IMPORTS: Final = ("server.worker",)
_DESCRIPTORS: Final = 3


class Birth(NamedTuple):
    """What a worker is told when it begins.

    Args:
        link: Its end of its link.
        grpc_port: The port that all workers share.
        slot: Which place among the workers it fills.
    """

    link: Link
    grpc_port: int
    slot: int


# ---- the nursery's own side ----


def inherited_end() -> socket.socket | None:
    """The nursery's end, in a process that was started to be one."""
    spelled = os.environ.pop(NURSERY_VARIABLE, None)
    return None if spelled is None else socket.socket(fileno=int(spelled))


def nurse(end: socket.socket, imports: Sequence[str] = WORKER_IMPORTS) -> Birth | None:
    """Bears workers until the supervisor's end is closed.

    Args:
        end: The nursery's end.
        imports: Modules that every worker would import.

    Returns:
        In each worker what it is to be; None in the nursery itself, once it is over.
    """
    os.set_inheritable(end.fileno(), False)  # noqa: FBT003  its only form
    for module in imports:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a worker would write to pages that all share
    poll, children = select.poll(), dict[int, int]()  # pidfd → pid
    poll.register(end, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in children:
                poll.unregister(descriptor)
                _, status = os.waitpid(children.pop(descriptor), 0)
                os.close(descriptor)
                _tell(end, {"op": "ended", "pidfd": descriptor, "code": os.waitstatus_to_exitcode(status)})
                continue
            packet, descriptors, _, _ = socket.recv_fds(end, PACKET_BYTES, _DESCRIPTORS)
            if not packet:
                return None
            pid = os.fork()
            if not pid:
                end.close()
                for other in children:
                    os.close(other)
                return _begin(json.loads(packet), descriptors)
            for given in descriptors:
                os.close(given)
            pidfd = os.pidfd_open(pid)
            children[pidfd] = pid
            poll.register(pidfd, select.POLLIN)
            _tell(end, {"op": "born", "pid": pid, "pidfd": pidfd})


def _begin(wanted: dict[str, Any], descriptors: list[int]) -> Birth:
    os.setsid()  # Ctrl-C reaches the supervisor alone, which then drains
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003  its only form
    if len(descriptors) == _DESCRIPTORS:
        os.environ[TABLE_VARIABLE] = str(descriptors[2])
    end = socket.socket(fileno=moved_up(descriptors[0]))
    end.settimeout(0)
    return Birth(Link(end, Counter(descriptors[1])), wanted["grpc_port"], wanted["slot"])


def _tell(end: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone, which the next look finds
        end.send(json.dumps(message).encode())


# ---- the supervisor's side ----


@dataclass(eq=False)
class Child:
    """A worker as a process that is not ours.

    Args:
        pid: Its number.
        pidfd: Stands for it, whatever becomes of the number.
        code: Its exit code, once the nursery has told.
    """

    pid: int
    pidfd: int
    code: "asyncio.Future[int | None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def wait(self) -> int | None:
        """Waits until it has ended; returns its exit code, or None where its nursery ended first."""
        await _readable(self.pidfd)
        os.close(self.pidfd)
        try:
            # Ours after all, where its nursery ended first and this is the first process of a container.
            _, status = os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222  it has ended
        except ChildProcessError:
            return await self.code
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(OSError):  # it has ended
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


class Nursery:
    """The supervisor's end of a nursery.

    Args:
        end: Its end.
        pid: The nursery's process, a child of this one.
    """

    def __init__(self, end: socket.socket, pid: int) -> None:
        end.settimeout(0)
        self._end = end
        self._pid = pid
        self._births: deque[asyncio.Future[Child]] = deque()  # asked for, and told in the same order
        self._children: dict[int, Child] = {}  # by the nursery's own number for each
        self._over = False

    @classmethod
    def fork(cls) -> "Self | socket.socket":
        """Divides this process, which has neither threads nor an event loop.

        Returns:
            Here the nursery, and in the nursery its end, for `nurse`.
        """
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.collect()
        gc.freeze()  # as in `nurse`
        pid = os.fork()
        if not pid:
            here.close()
            os.setsid()
            return there
        there.close()
        return cls(here, pid)

    @classmethod
    def start(cls) -> Self:
        """Starts one anew, by this process's own command line: with the code and the settings as they are now."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            os.set_inheritable(there.fileno(), True)  # noqa: FBT003  its only form
            environment = os.environ | {NURSERY_VARIABLE: str(there.fileno())}
            command = [sys.executable, "-m", "server", *sys.argv[1:]]
            pid = os.posix_spawn(sys.executable, command, environment, setsid=True)
        return cls(here, pid)

    @property
    def over(self) -> bool:
        """Whether it has ended, so that no worker can come of it."""
        return self._over

    def listen(self) -> None:
        """Hears it on the running event loop."""
        asyncio.get_running_loop().add_reader(self._end, self._read)

    async def bear(self, slot: int, grpc_port: int, descriptors: list[int]) -> Child:
        """Has it bear a worker.

        Args:
            slot: Which place among the workers it fills.
            grpc_port: The port that its gRPC server shares with the others.
            descriptors: Its link's end, its counter, and the table of rates where there is one.

        Raises:
            StartupError: The nursery has ended.
        """
        try:
            socket.send_fds(self._end, [json.dumps({"slot": slot, "grpc_port": grpc_port}).encode()], descriptors)
        except OSError as error:
            raise StartupError(f"the process that workers are forked from is gone: {error.strerror}") from error
        born: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._births.append(born)
        return await born

    async def close(self) -> None:
        """Has it end, and waits for that; its workers go on."""
        if not self._over:
            asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()
        self._lose()
        pidfd = os.pidfd_open(self._pid)
        await _readable(pidfd)
        os.close(pidfd)
        os.waitpid(self._pid, 0)  # noqa: ASYNC222  it has ended
        self._over = True

    def _lose(self) -> None:
        for child in self._children.values():
            child.code.set_result(None)
        self._children.clear()
        for born in self._births:
            if not born.done():
                born.set_exception(StartupError("the process that workers are forked from has ended"))
        self._births.clear()

    def _read(self) -> None:
        for message in self._received():
            if message["op"] == "born":
                child = self._children[message["pidfd"]] = Child(message["pid"], os.pidfd_open(message["pid"]))
                self._hand_over(child)
            elif message["op"] == "ended":
                self._children.pop(message["pidfd"]).code.set_result(message["code"])

    def _hand_over(self, child: Child) -> None:
        born = self._births.popleft()
        if born.done():  # whoever asked has gone meanwhile
            child.kill()
        else:
            born.set_result(child)

    def _received(self) -> Iterator[dict[str, Any]]:
        while True:
            try:
                packet = self._end.recv(PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                packet = b""
            if not packet:
                self._over = True
                asyncio.get_running_loop().remove_reader(self._end)
                self._lose()
                return
            yield json.loads(packet)


async def _readable(descriptor: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
