"""HTTP: sockets, headers, and errors of every kind as one shape. What is served is said in `http_routes`.

connection ──▶ aiohttp ──▶ envelope: request id, problem+json, Server-Timing ──▶ a handler of `http_routes`
"""

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from server.congestion import Congestion
from server.metrics import Metrics
from server.security import Security
from server.service import Service
from server.tracing import keep_parent
from server.transports.http_connection import Doors, HotHandler
from server.transports.http_docs import DOCS_ROUTES
from server.transports.http_explain import EXPLAIN_ROUTES
from server.transports.http_feedback import FEEDBACK_ROUTES
from server.transports.http_keys import BODY_LIMIT, METRICS, REQUEST_ID, SECURITY, SERVICE, TIMING, V2_DOOR
from server.transports.http_patience import Patience
from server.transports.http_problems import spell_problem, spell_timing
from server.transports.http_routes import ROUTES, SERVED
from server.transports.http_security import HttpSecurity
from server.transports.http_tls import HANDSHAKE_S, Accepter
from server.transports.request_ids import request_id_of
from server.transports.tfserving import TfServing
from server.transports.tfserving_http import PREFIX as V1_PREFIX
from server.transports.tfserving_http import TFSERVING_DOOR, TFSERVING_ROUTES
from server.transports.v2 import V2
from server.transports.v2_http import V2_ROUTES

BACKLOG: Final = 1024
# How long a kept connection that is idle at a stop may still bring the request that its client was just sending. Each
# such connection is told to close with that answer.
LINGER_S: Final = 0.1
POLL_S: Final = 0.02  # while stopping only
_NAME: Final = re.compile(r"\{(\w+)\}")


class HttpTransport:
    """Serves HTTP on one socket, or on connections that are handed in.

    Args:
        service: Answers.
        metrics: What /metrics shows.
        max_body_bytes: Size of a body at most, after decompression.
        drain_timeout_s: How long accepted requests may take to finish at a stop.
        budget_s: What a request that names no deadline has.
        v2: Answers the Open Inference Protocol; what the gRPC side has, so that both tell the same settings.
        security: Who is let in, and how; None for everybody, without TLS.
    """

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        drain_timeout_s: float,
        budget_s: float,
        v2: V2 | None = None,
        security: Security | None = None,
    ) -> None:
        self._drain_timeout_s = drain_timeout_s
        self._security = security = security or Security()
        self._app = web.Application(client_max_size=max_body_bytes, middlewares=[self._envelope])
        if service.traced:
            self._app.middlewares.append(_keep_trace)
        if security.restricts:
            rules = HttpSecurity(security.guard, security.origins, metrics)
            self._app.middlewares.append(rules.check)
            self._app.on_response_prepare.append(rules.add_headers)
        self._app[SERVICE] = service
        self._app[METRICS] = metrics
        self._app[SECURITY] = security
        self._app[BODY_LIMIT] = max_body_bytes
        self._app[V2_DOOR] = v2 or V2(service, metrics)
        self._app[TFSERVING_DOOR] = TfServing(service, metrics)
        self._doors = Doors(service, metrics, self._app[V2_DOOR], max_body_bytes, security, service.traced)
        self._app[SERVED] = (*ROUTES, *EXPLAIN_ROUTES, *FEEDBACK_ROUTES, *DOCS_ROUTES, *V2_ROUTES, *TFSERVING_ROUTES)
        for route in self._app[SERVED]:
            add = self._app.router.add_get if route.method == "GET" else self._app.router.add_post
            add(_pattern(route.path), route.handler)
        self._congestion = Congestion(budget_s)
        self._listening: asyncio.Server | None = None
        self._accepter: Accepter | None = None
        self._patience: asyncio.Task[None] | None = None
        self.on_lost: Callable[[], None] = lambda: None  # called when a connection is gone
        # aiohttp logs a trace for each client that speaks no HTTP; who wants to could fill a disk with it.
        quiet = logging.getLogger("server.http")
        quiet.setLevel(logging.CRITICAL)
        self._runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=quiet,
            handler_cancellation=True,
            shutdown_timeout=drain_timeout_s,
            auto_decompress=False,  # `read_body` does it, with the limit, and refuses what aiohttp would let pass
        )

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    async def start(self, listening: socket.socket | None = None) -> None:
        """Gets ready, and accepts connections where there is a socket for it.

        Args:
            listening: A bound socket; None where connections are handed to `adopt`.
        """
        await self._runner.setup()
        patience = Patience(self._connections, self._security.request_timeout_s)
        self._patience = asyncio.create_task(patience.keep())
        if listening is not None and self._security.tls is not None:
            self._accepter = Accepter(listening, self.adopt, BACKLOG)
            self._accepter.start()
        elif listening is not None:
            self._listening = await asyncio.get_running_loop().create_server(
                self._handler, sock=listening, backlog=BACKLOG
            )

    async def adopt(self, connection: socket.socket) -> None:
        """Serves a connection that someone else has accepted.

        Raises:
            OSError: Its client has gone again, or does not manage TLS.
        """
        loop, tls = asyncio.get_running_loop(), self._security.tls
        if tls is None:
            await loop.connect_accepted_socket(self._handler, connection)
        else:
            await loop.connect_accepted_socket(
                self._handler, connection, ssl=tls.current.context, ssl_handshake_timeout=HANDSHAKE_S
            )

    def _connections(self) -> list[HotHandler]:
        server = self._runner.server
        return [] if server is None else [held for held in server.connections if isinstance(held, HotHandler)]

    def _handler(self) -> HotHandler:
        server = self._runner.server
        assert server is not None
        options = server._kwargs  # noqa: SLF001  what aiohttp's own factory, Server.__call__, passes on
        return HotHandler(
            server, self._congestion, self._doors, self.on_lost, loop=asyncio.get_running_loop(), **options
        )

    async def stop(self) -> None:
        """Accepts nothing more, finishes what was accepted, and closes every connection."""
        if self._listening is not None:
            self._listening.close()
        if self._accepter is not None:
            await self._accepter.stop()
        if self._patience is not None:
            self._patience.cancel()
        server = self._runner.server
        if server is not None and server.connections:
            await asyncio.sleep(LINGER_S)
        # aiohttp's own clean-up drops what still arrives, and with it requests whose bodies are on their way.
        give_up_s = time.monotonic() + self._drain_timeout_s
        while self._doors.running and time.monotonic() < give_up_s:  # noqa: ASYNC110  an event would cost every request
            await asyncio.sleep(POLL_S)
        await self._runner.cleanup()

    @web.middleware
    async def _envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = time.perf_counter()
        request_id = request[REQUEST_ID] = request_id_of(request.headers.get("X-Request-Id"))
        self._doors.running += 1
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and everyone else goes on
            problem = spell_problem(error, request.path, request_id, request.app[BODY_LIMIT], request.method)
            response = web.Response(
                status=problem.status, body=problem.body, content_type=problem.kind, headers=problem.headers
            )
        finally:
            self._doors.running -= 1
        headers = response.headers
        headers["Server"] = "Shoal"
        headers["X-Request-Id"] = request_id
        headers["Server-Timing"] = spell_timing(request.get(TIMING), time.perf_counter() - started_s)
        if request.app[SERVICE].draining:
            response.force_close()
        return response


@web.middleware
async def _keep_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    keep_parent(request.headers.items())
    return await handler(request)


def _pattern(path: str) -> str:
    """A path as aiohttp's router takes it."""
    # TensorFlow Serving's names end at a colon: `{model}:predict` is no model of that name.
    return _NAME.sub(r"{\1:[^{}/:]+}", path) if path.startswith(f"{V1_PREFIX}/") else path
