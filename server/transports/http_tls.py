"""HTTPS: connections that are accepted here, each with the certificates in force at that moment.

    listening socket ──accept──▶ handshake, in time or never ──▶ the connection's handler

asyncio's own servers keep one context for as long as they listen, so new certificates would need a restart.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

HANDSHAKE_S: Final = 10.0
ACCEPTS_AT_ONCE: Final = 64


class Accepter:
    """Accepts connections and has each adopted.

    Args:
        listening: A bound socket.
        adopt: Serves a connection.
        backlog: Connections that may wait.
    """

    def __init__(
        self, listening: socket.socket, adopt: Callable[[socket.socket], Awaitable[None]], backlog: int
    ) -> None:
        self._listening = listening
        self._adopt = adopt
        self._backlog = backlog
        self._handshakes: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accepts from now on."""
        self._listening.listen(self._backlog)
        self._listening.settimeout(0)
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    async def stop(self) -> None:
        """Accepts nothing more; returns when every handshake is done."""
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        await asyncio.gather(*self._handshakes)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except OSError:  # none left, or no descriptor left: the kernel keeps the rest
                return
            connection.settimeout(0)
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._adopt(connection)
        except OSError:  # no TLS, no right certificate, too slow, or gone again
            connection.close()
