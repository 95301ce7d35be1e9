"""Metrics on a port of their own: the one for requests may be open to the world, this one to Prometheus alone.

GET /metrics ──▶ the page of all workers        GET /health/live ──▶ 200 as long as the event loop turns
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from server.metrics_workers import CONTENT_TYPE
from server.settings import Settings
from server.sockets import bind

Render = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def open_metrics_port(settings: Settings, render: Render) -> AsyncIterator[None]:
    """Answers on the port for metrics, where there is one, for as long as the context lasts.

    Args:
        settings: Which.
        render: Gives the page.

    Raises:
        StartupError: It is taken.
    """
    if not settings.metrics_port:
        yield
        return
    with bind(settings.host, settings.metrics_port, flag="--metrics-port") as listening:
        async with _serve(listening, render):
            yield


@asynccontextmanager
async def _serve(listening: socket.socket, render: Render) -> AsyncIterator[None]:
    from aiohttp import web  # noqa: PLC0415  a supervisor without such a port should not pay for it

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=await render(), headers={"Content-Type": CONTENT_TYPE})

    async def get_live(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    app = web.Application()
    app.add_routes([web.get("/metrics", get_metrics), web.get("/health/live", get_live)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()
