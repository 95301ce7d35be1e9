"""Ends connections whose clients begin and do not finish: a head or a body that does not arrive, answers nobody reads.

    once a second, each connection: unfinished, and the same as before? ──since too long──▶ 408, closed

Looking at all connections now and then costs a request nothing; a timer for each would.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

LOOK_EVERY_S: Final = 1.0


class Connection(Protocol):
    """What is looked at."""

    def unfinished(self) -> object | None:
        """What its client has begun and not finished: another object for each such thing, or None."""
        ...  # pragma: no cover

    def give_up(self) -> None:
        """Closes it."""
        ...  # pragma: no cover


class Patience:
    """Knows for how long each connection's client has been at it.

    Args:
        connections: Lists them.
        limit_s: How long a client may take.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._limit_s = limit_s
        self._clock = clock
        self._seen: dict[int, tuple[object, float]] = {}  # by the connection's id

    async def keep(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S, self._limit_s / 4))
            self.look()

    def look(self) -> None:
        """Looks at every connection once."""
        now_s, seen = self._clock(), {}
        for connection in list(self._connections()):
            what = connection.unfinished()
            if what is None:
                continue
            before, since_s = self._seen.get(id(connection), (None, now_s))
            if before is not what:
                since_s = now_s
            if now_s - since_s >= self._limit_s:
                connection.give_up()
            else:
                seen[id(connection)] = what, since_s
        self._seen = seen
