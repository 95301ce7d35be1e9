"""One parent that keeps worker processes alive, each serving on a core of its own.

    clients ──HTTP──▶ supervisor accepts ──the connection itself──▶ the worker with the fewest
            ──gRPC──▶ kernel (SO_REUSEPORT) ──────────────────────▶ a worker ◀──fork── nursery

The HTTP socket stays here, so it outlives every worker: a crash or a rolling restart refuses no connection. Giving each
new one to the worker with the fewest keeps the cores evenly busy, which SO_REUSEPORT's hash does not: 8 connections to
2 workers came out as 6 + 2 or worse in 4 of 10 tries. gRPC's core accepts for itself; there the kernel spreads them.

    SIGHUP   each worker in turn: start its successor, wait until it is ready, let the old one finish
    SIGTERM  unready → wait drain_grace_s → stop accepting → workers finish what was accepted → exit 0
             a second one ends all at once
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from server.announcement import Announcement, announce
from server.errors import StartupError
from server.links import Message
from server.metrics_port import open_metrics_port
from server.metrics_workers import WorkersMetrics
from server.nursery import Nursery
from server.rate_limit import shared_table
from server.settings import Settings
from server.sockets import bind, reserve_shared
from server.worker_process import WorkerProcess, start_worker

BACKLOG: Final = 1024
ACCEPTS_AT_ONCE: Final = 64
PING_INTERVAL_S: Final = 1.0
# A worker's loop may be held by one large decode or a garbage collection; ten seconds of silence is no pause.
SILENCE_S: Final = 10.0
BACKOFF_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
HEALTHY_AFTER_S: Final = 30.0

log = structlog.get_logger()


async def supervise(settings: Settings, workers: int, nursery: Nursery) -> None:
    """Serves with several workers until SIGTERM or SIGINT.

    Args:
        settings: The server's settings.
        workers: How many.
        nursery: Bears them.

    Raises:
        StartupError: A port is taken, or the workers cannot start as asked.
    """
    with (
        bind(settings.host, settings.http_port, flag="--http-port") as http,
        reserve_shared(settings.host, settings.grpc_port, flag="--grpc-port") as reserved,
        shared_table(wanted=settings.rate_limit_per_s > 0),
    ):
        http.listen(BACKLOG)
        http.settimeout(0)
        port = reserved.getsockname()[1]
        await Supervisor(settings, workers=workers, http=http, grpc_port=port, nursery=nursery).run()


class Supervisor:
    """Starts workers, gives them connections, restarts the ones that die.

    Args:
        settings: The server's settings.
        workers: How many to keep.
        http: The listening HTTP socket.
        grpc_port: The port every worker's gRPC server shares.
        nursery: Bears workers.
    """

    def __init__(
        self, settings: Settings, *, workers: int, http: socket.socket, grpc_port: int, nursery: Nursery
    ) -> None:
        self._settings = settings
        self._wanted = workers
        self._http = http
        self._grpc_port = grpc_port
        self._nursery = nursery
        self._renewing = asyncio.Lock()
        self._workers: dict[int, WorkerProcess] = {}  # by slot
        self._retiring: set[WorkerProcess] = set()
        self._crashes: dict[int, int] = {}
        self._metrics = WorkersMetrics()
        self._answers: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._accepting = False

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT.

        Raises:
            StartupError: The first workers could not start.
        """
        loop = asyncio.get_running_loop()
        self._nursery.listen()
        with _signals(loop, self._on_stop_signal, self._reload.set):
            try:
                announcement = await self._start_all()
                async with open_metrics_port(self._settings, self._render_metrics):
                    announce(self._settings, announcement, self._http.getsockname()[1], self._grpc_port)
                    await self._watch()
                    await self._drain()
            finally:
                self._stop_accepting()
                await self._kill_all()
                await self._nursery.close()

    async def _start_all(self) -> Announcement:
        started = await asyncio.gather(*(self._start(slot) for slot in range(self._wanted)), return_exceptions=True)
        for result in started:
            if isinstance(result, BaseException):
                raise result
        self._accept_when_possible()
        return await self._workers[0].wait_ready()

    async def _start(self, slot: int) -> WorkerProcess:
        nursery = await self._living_nursery()
        worker = await start_worker(nursery, slot, self._grpc_port, on_message=self._on_message)
        try:
            await worker.wait_ready()
        except BaseException:
            worker.kill()
            await worker.wait()
            raise
        self._workers[slot] = worker
        return worker

    # ---- while it runs ----

    async def _watch(self) -> None:
        """Restarts what dies, pings what lives, replaces all on SIGHUP; returns when a stop is asked for."""
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(slot)) for slot in range(self._wanted)]
            keepers += [tasks.create_task(self._ping()), tasks.create_task(self._restart_on_signal())]
            await self._stop.wait()
            for keeper in keepers:
                keeper.cancel()

    async def _keep(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            worker = self._workers[slot]
            code = await worker.wait()
            if self._workers[slot] is not worker:
                continue  # a rolling restart has put its successor in place
            self._metrics.restarts += 1
            self._metrics.end(worker)
            healthy = loop.time() - worker.started_s > HEALTHY_AFTER_S
            crashes = self._crashes[slot] = 0 if healthy else self._crashes.get(slot, 0) + 1
            delay_s = BACKOFF_S[min(crashes, len(BACKOFF_S)) - 1] if crashes else 0.0
            log.error("worker ended", slot=slot, pid=worker.pid, code=code, restart_in_s=delay_s)
            self._accept_when_possible()
            await asyncio.sleep(delay_s)
            await self._revive(slot)

    async def _revive(self, slot: int) -> None:
        try:
            worker = await self._start(slot)
        except StartupError as error:
            log.error("worker cannot start", slot=slot, reason=str(error))  # noqa: TRY400  the reason is the message
        else:
            log.info("worker restarted", slot=slot, pid=worker.pid)
        self._accept_when_possible()

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        while True:
            # If this process itself was held up (a suspended machine, a stopped container), so were its workers.
            held_up = loop.time() - looked_s > SILENCE_S / 2
            looked_s = loop.time()
            for worker in self._workers.values():
                if held_up:
                    worker.heard_s = looked_s
                worker.ping()
                if loop.time() - worker.heard_s > SILENCE_S and worker.alive:
                    log.error("worker is silent", slot=worker.slot, pid=worker.pid, for_s=SILENCE_S)
                    worker.kill()
            await asyncio.sleep(PING_INTERVAL_S)

    async def _restart_on_signal(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            log.info("rolling restart", workers=self._wanted)
            async with self._renewing:
                await self._renew_nursery()
            for slot in range(self._wanted):
                await self._replace(slot)

    async def _living_nursery(self) -> Nursery:
        async with self._renewing:  # several workers that end with their nursery want one new one
            if self._nursery.over:
                await self._renew_nursery()
            return self._nursery

    async def _renew_nursery(self) -> None:
        """So that what comes up has the code and the settings of now."""
        await self._nursery.close()
        self._nursery = Nursery.start()
        self._nursery.listen()

    async def _replace(self, slot: int) -> None:
        old = self._workers[slot]
        try:
            new = await self._start(slot)
        except StartupError as error:
            log.error("the old worker goes on", slot=slot, reason=str(error))  # noqa: TRY400
            return
        log.info("worker replaced", slot=slot, old=old.pid, new=new.pid)
        self._retiring.add(old)
        await self._metrics.ask(old)  # while it can still tell
        old.stop()
        await self._wait_ended([old])
        self._retiring.discard(old)
        self._metrics.end(old)

    def _on_message(self, sender: WorkerProcess, message: Message, stream: socket.socket | None) -> None:
        if message["op"] == "metrics" and stream is not None:
            task = asyncio.get_running_loop().create_task(self._send_metrics(stream))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        elif message["op"] == "rejected":
            # what one worker found out about a version, the others need not find out too
            for worker in self._workers.values():
                if worker is not sender:
                    worker.tell(message)

    async def _send_metrics(self, stream: socket.socket) -> None:
        """Answers with the metrics of all workers as one, and the supervisor's own."""
        with stream:  # whatever happens, the worker that asked must not wait for ever
            text = await self._render_metrics()
            stream.settimeout(0)
            try:
                await asyncio.get_running_loop().sock_sendall(stream, text)
            except OSError as error:  # the worker that asked has gone
                log.warning("metrics were not delivered", reason=str(error))

    async def _render_metrics(self) -> bytes:
        return await self._metrics.render(list(self._workers.values()), list(self._retiring))

    # ---- connections ----

    def _accept_when_possible(self) -> None:
        """Accepts while some worker is ready; until then connections wait in the kernel's queue."""
        possible = any(worker.ready for worker in self._workers.values()) and not self._stop.is_set()
        if possible and not self._accepting:
            asyncio.get_running_loop().add_reader(self._http, self._accept)
        elif not possible:
            self._pause_accepting()
        self._accepting = possible

    def _pause_accepting(self) -> None:
        if self._accepting:
            asyncio.get_running_loop().remove_reader(self._http)
        self._accepting = False

    def _stop_accepting(self) -> None:
        self._pause_accepting()
        self._http.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, _ = self._http.accept()
            except OSError:  # none left, or no descriptor left: the kernel keeps the rest
                return
            with connection:
                self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        ready = [worker for worker in self._workers.values() if worker.ready]
        for worker in sorted(ready, key=lambda worker: (worker.connections, worker.given)):
            if worker.give(connection):
                return
        log.error("a connection was refused: no worker takes it", workers=len(ready))
        self._accept_when_possible()

    # ---- stopping ----

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            for worker in [*self._workers.values(), *self._retiring]:
                worker.kill()
        self._stop.set()

    async def _drain(self) -> None:
        workers = [*self._workers.values(), *self._retiring]
        log.info("draining", workers=len(workers), grace_s=self._settings.drain_grace_s)
        for worker in workers:
            worker.tell({"op": "drain"})
        await asyncio.sleep(self._settings.drain_grace_s)
        self._accept()  # what the kernel has queued was accepted as far as its sender can tell
        self._stop_accepting()
        for worker in workers:
            worker.stop()
        await self._wait_ended(workers)
        log.info("stopped")

    async def _wait_ended(self, workers: list[WorkerProcess]) -> None:
        # A worker enforces both limits itself and says so; the margin is for one that hangs.
        limit_s = self._settings.drain_timeout_s + self._settings.prediction_log_stop_s + 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(worker.wait() for worker in workers)), limit_s)
        for worker in workers:
            if worker.alive:
                log.error("worker did not stop in time", pid=worker.pid, limit_s=limit_s)
                worker.kill()

    async def _kill_all(self) -> None:
        everyone = [*self._workers.values(), *self._retiring]
        for worker in everyone:
            worker.kill()
        await asyncio.gather(*(worker.wait() for worker in everyone))


@contextlib.contextmanager
def _signals(
    loop: asyncio.AbstractEventLoop, on_stop: Callable[[], None], on_reload: Callable[[], None]
) -> Iterator[None]:
    handlers = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: on_reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
