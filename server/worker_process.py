"""The supervisor's side of one worker: its process, its link, and what is known of its health."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable

from server.announcement import Announcement
from server.errors import StartupError
from server.links import END, WORKER_VARIABLE, Link, Message, make_pair, read_all, spell_ends
from server.rate_limit import passed_on

METRICS_WITHIN_S = 2.0


class WorkerProcess:
    """A running worker.

    Args:
        slot: Which place among the workers it fills.
        process: Its process.
        link: The supervisor's end of its link.
        on_message: Called with what it wants of the supervisor, and the stream to answer on.
    """

    def __init__(self, slot: int, process: Process, link: Link, on_message: "OnMessage") -> None:
        loop = asyncio.get_running_loop()
        self.slot = slot
        self.pid = process.pid
        self.started_s = self.heard_s = loop.time()
        self._process = process
        self._link = link
        self._on_message = on_message
        self.given = 0
        self._stopping = False
        self._started: asyncio.Future[Announcement] = loop.create_future()
        self._ended = loop.create_task(self._watch_end())
        loop.add_reader(link.end, self._read)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended.done()

    @property
    def ready(self) -> bool:
        """Whether it takes connections."""
        started = self._started.done() and not self._started.cancelled() and self._started.exception() is None
        return started and self.alive and not self._stopping

    @property
    def connections(self) -> int:
        """Connections given to it and not yet closed."""
        return self.given - self._link.closed.value

    async def wait_ready(self) -> Announcement:
        """Waits until it serves, and returns what.

        Raises:
            StartupError: It ended instead; the message is its own.
        """
        return await asyncio.shield(self._started)

    async def wait(self) -> int:
        """Waits until the process has ended, and returns its exit code."""
        return await asyncio.shield(self._ended)

    def give(self, connection: socket.socket) -> bool:
        """Hands it an accepted connection; False when it does not take it."""
        taken = self.tell({"op": "accept"}, connection)
        self.given += taken
        return taken

    def ping(self) -> None:
        """Asks for a sign of life."""
        self.tell({"op": "ping"})

    def tell(self, message: Message, stream: socket.socket | None = None) -> bool:
        """Sends a message; False when the worker has gone or does not read, of which `wait` or a missing pong tells."""
        try:
            self._link.send(message, stream)
        except OSError:
            return False
        return True

    async def render_metrics(self) -> bytes:
        """Its own metrics, packed; none from a worker that does not answer in time."""
        here, there = socket.socketpair()
        with there:
            told = self.tell({"op": "render"}, there)
        if not told:
            here.close()
            return b""
        try:
            text = await asyncio.wait_for(read_all(here), METRICS_WITHIN_S)
        except TimeoutError:
            return b""
        return text.removesuffix(END) if text.endswith(END) else b""

    def stop(self) -> None:
        """Asks it to finish what it has and end; connections given before are served."""
        self._stopping = True
        self.tell({"op": "stop"})

    def kill(self) -> None:
        """Ends it at once."""
        if self.alive:
            self._process.send_signal(signal.SIGKILL)

    def _read(self) -> None:
        while True:
            try:
                received = self._link.receive_nowait()
            except BlockingIOError:
                return
            if received is None:
                self._stopping = True  # its end is closed, so it takes nothing more, whatever becomes of the process
                asyncio.get_running_loop().remove_reader(self._link.end)
                return
            self._handle(*received)

    def _handle(self, message: Message, stream: socket.socket | None) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        match message["op"]:
            case "pong":
                return
            case "ready" if not self._started.done():
                self._started.set_result(Announcement(**message["announcement"]))
            case "failed" if not self._started.done():
                self._started.set_exception(StartupError(message["message"]))
            case _:
                self._on_message(self, message, stream)

    async def _watch_end(self) -> int:
        code = await self._process.wait()
        self._read_rest()
        if not self._started.done():
            self._started.set_exception(StartupError(f"a worker ended with code {code} before it was ready"))
        self._started.exception()  # nobody may be waiting for it any more
        return code

    def _read_rest(self) -> None:
        asyncio.get_running_loop().remove_reader(self._link.end)
        self._read()
        asyncio.get_running_loop().remove_reader(self._link.end)
        self._link.close()


OnMessage = Callable[[WorkerProcess, Message, socket.socket | None], None]


async def start_worker(slot: int, grpc_port: int, *, on_message: OnMessage) -> WorkerProcess:
    """Starts one more process with this one's own command line.

    Args:
        slot: Which place among the workers it fills.
        grpc_port: The port its gRPC server shares with the others.
        on_message: Called with what it wants of the supervisor, and the stream to answer on.
    """
    link, there = make_pair()
    with there:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server",
            *sys.argv[1:],
            env=os.environ | {WORKER_VARIABLE: spell_ends(there, link.closed, grpc_port, slot)},
            pass_fds=(there.fileno(), link.closed.descriptor, *passed_on()),
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then drains
        )
    return WorkerProcess(slot, process, link, on_message)
