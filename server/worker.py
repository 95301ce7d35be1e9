"""A worker: one serving process that gets its HTTP connections from a supervisor.

    supervisor ──accept + connection──▶ adopt     ──ping──▶ pong     ──drain──▶ unready
               ──render + stream──▶ its own metrics                  ──stop──▶ finish what was given, end
               ──rejected──▶ forget a version that another worker rolled back

A supervisor that goes away is a stop too: nothing new can come, and what was accepted is finished.
"""

import asyncio
import socket
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import structlog

from server.app import App, open_app
from server.cores import Pinning, have_a_core_each, keep_all_to, keep_to, own_cores, roam
from server.errors import StartupError
from server.links import END, Link, Message, read_all
from server.models import ModelEvent
from server.nursery import Birth
from server.settings import Settings

log = structlog.get_logger()


async def work(settings: Settings, birth: Birth, workers: int) -> None:
    """Serves until the supervisor says stop, or is gone.

    Args:
        settings: The server's settings.
        birth: What this worker was told when it began.
        workers: How many there are.
    """
    link = birth.link
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(initializer=roam))
    try:
        async with open_app(settings, None, grpc_port=birth.grpc_port, reuse_port=True) as app:
            worker = _Worker(app, link)
            with worker:
                _keep_to_own_cores(settings.pin_workers, birth.slot, workers)
                link.send({"op": "ready", "announcement": asdict(app.announcement())})
                await worker.stopped()
                await app.become_unready()
    except StartupError as error:
        # The supervisor says it, once for all workers.
        link.send({"op": "failed", "message": str(error)})
    finally:
        link.close()


def _keep_to_own_cores(pinning: Pinning, slot: int, workers: int) -> None:
    # Once it is ready: until then, after a crash or in a rolling restart, it would take its core from the one before.
    if pinning == "auto":
        pinning = "loop" if have_a_core_each(workers) else "never"
    if pinning == "never":
        return
    cores = own_cores(slot, workers)
    (keep_to if pinning == "loop" else keep_all_to)(cores)
    log.info("worker keeps to its cores", slot=slot, what=pinning, cores=cores)


class _Worker:
    def __init__(self, app: App, link: Link) -> None:
        self._app = app
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()
        app.http.on_lost = self._count_lost
        app.metrics.of_all = self._metrics_of_all
        app.listener.rolled_back = self._tell_rollback

    def __enter__(self) -> None:
        self._loop.add_reader(self._link.end, self._read)

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._link.end)

    async def stopped(self) -> None:
        """Waits for `stop`, then until every connection given before it is being served."""
        await self._stop.wait()
        await asyncio.gather(*self._tasks)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                received = self._link.receive_nowait()
            except BlockingIOError:
                return
            if received is None:
                log.warning("the supervisor is gone")
                self._stop.set()
                return
            self._handle(*received)

    def _handle(self, message: Message, connection: socket.socket | None) -> None:
        match message["op"]:
            case "accept" if connection is not None:
                self._spawn(self._adopt(connection))
            case "render" if connection is not None:
                self._spawn(self._send(connection, self._app.metrics.packed() + END))
            case "ping":
                self._link.send({"op": "pong"})
            case "drain":
                self._spawn(self._app.become_unready())
            case "stop":
                self._stop.set()
            case "rejected":
                self._app.models.reject(message["model"], message["version"], message["reason"])
            case unknown:
                log.error("unknown message from the supervisor", op=unknown)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        try:
            await self._app.http.adopt(connection)
        except OSError:  # its client has gone again
            connection.close()
            self._count_lost()

    def _count_lost(self) -> None:
        """Tells the supervisor that a connection it gave has ended."""
        self._link.closed.value += 1

    # ---- what only all workers together know ----

    async def _metrics_of_all(self) -> bytes:
        here, there = socket.socketpair()
        with there:
            self._link.send({"op": "metrics"}, there)
        return await read_all(here)

    async def _send(self, stream: socket.socket, content: bytes) -> None:
        with stream:
            stream.settimeout(0)
            await self._loop.sock_sendall(stream, content)

    def _tell_rollback(self, event: ModelEvent) -> None:
        self._link.send({"op": "rejected", "model": event.name, "version": event.version, "reason": event.reason})
