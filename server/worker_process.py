"""The supervisor's side of one worker: its process, its link, and what is known of its health."""

import asyncio
import socket
from collections.abc import Callable

from server.announcement import Announcement
from server.errors import StartupError
from server.links import END, Link, Message, make_pair, read_all
from server.nursery import Child, Nursery
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

    def __init__(self, slot: int, process: Child, link: Link, on_message: "OnMessage") -> None:
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

    async def wait(self) -> int | None:
        """Waits until the process has ended, and returns its exit code, if that is known."""
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
            self._process.kill()

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

    async def _watch_end(self) -> int | None:
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


async def start_worker(nursery: Nursery, slot: int, grpc_port: int, *, on_message: OnMessage) -> WorkerProcess:
    """Has one more worker born.

    Args:
        nursery: Bears it.
        slot: Which place among the workers it fills.
        grpc_port: The port its gRPC server shares with the others.
        on_message: Called with what it wants of the supervisor, and the stream to answer on.

    Raises:
        StartupError: The nursery has ended.
    """
    link, there = make_pair()
    with there:
        descriptors = [there.fileno(), link.closed.descriptor, *passed_on()]
        try:
            process = await nursery.bear(slot, grpc_port, descriptors)
        except BaseException:
            link.close()
            raise
    return WorkerProcess(slot, process, link, on_message)
