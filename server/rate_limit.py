"""How much one client may ask for: requests per second over the whole server, and requests at a time in each worker.

    client ──keyed hash──▶ two cells of a table ──▶ is it the client's turn? ──▶ go on
                                                               └─ no ──▶ RateLimited, with when to come again

The rate is kept by the generic cell rate algorithm (ITU-T I.371, A.1), which is a token bucket with a single number for
each client: the time at which its bucket would be full again. The numbers lie in a table of fixed size, in memory that
all workers share, so a client cannot get more by opening more connections, and no number of clients takes more memory.
Two clients that share a cell are told apart by their other one, as in a count-min sketch with conservative update.

Workers do not lock the table. Two that write the same cell at the same moment may lose one of the two requests, so a
client may get a little more than its rate, never less.
"""

import contextlib
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from server.errors import RateLimited

# Where a worker finds the table: a variable of its own, not one of Settings.
TABLE_VARIABLE: Final = "SHOALRATES"
CELLS: Final = 1 << 17  # with 1,000 clients at work, one in 17,000 shares both of its cells with others
_SECRET_BYTES: Final = 16  # unknown outside, so that nobody can choose a name that shares a victim's cells
_CELL_BYTES: Final = 8
_MASK: Final = CELLS - 1


class RateTable:
    """Times by client, in microseconds of the machine's monotonic clock.

    Args:
        descriptor: A memory file, from `create` or inherited.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SECRET_BYTES + CELLS * _CELL_BYTES)
        self._secret = self._map[:_SECRET_BYTES]
        self._cells = memoryview(self._map)[_SECRET_BYTES:].cast("Q")

    @classmethod
    def create(cls) -> Self:
        """A new table in which nobody has asked for anything."""
        descriptor = os.memfd_create("shoal-rates")
        os.ftruncate(descriptor, _SECRET_BYTES + CELLS * _CELL_BYTES)
        os.pwrite(descriptor, os.urandom(_SECRET_BYTES), 0)
        return cls(descriptor)

    def advance(self, client: str, now_us: int, step_us: int, ahead_us: int) -> int:
        """Moves a client's time on by a step, unless it would be too far ahead.

        Args:
            client: Who.
            now_us: The time now.
            step_us: How far.
            ahead_us: How far ahead of now it may be.

        Returns:
            0 where it was moved; otherwise in how many microseconds it could be.
        """
        digest = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=8, key=self._secret).digest(), "little")
        cells, first, second = self._cells, digest & _MASK, digest >> 32 & _MASK
        at_us = max(now_us, min(cells[first], cells[second])) + step_us
        if at_us > now_us + ahead_us:
            return at_us - now_us - ahead_us
        cells[first], cells[second] = max(cells[first], at_us), max(cells[second], at_us)
        return 0

    def close(self) -> None:
        """Unmaps the memory and closes its file."""
        self._cells.release()
        self._map.close()
        os.close(self.descriptor)


class Limits:
    """What every client has to keep to.

    Args:
        rate_per_s: Requests per second; a second's worth, one at least, may come at once. 0: as many as they like.
        at_once: Requests under way at a time, here; 0: as many as they like.
        table: Where rates are kept; None where there is no rate.
        clock_us: The machine's monotonic clock, the same in all processes, in microseconds.
    """

    def __init__(
        self,
        rate_per_s: float,
        at_once: int,
        table: RateTable | None,
        clock_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._table = table if rate_per_s > 0 else None
        self._rate_per_s = rate_per_s
        self._step_us = round(1e6 / rate_per_s) if rate_per_s > 0 else 0
        self._ahead_us = max(1_000_000, self._step_us)
        self._at_once = at_once
        self._under_way: dict[str, int] = {}
        self._clock_us = clock_us

    def take(self, client: str) -> None:
        """Counts a request against its client's rate.

        Args:
            client: Who sends it.

        Raises:
            RateLimited: It comes too early.
        """
        if self._table is None:
            return
        wait_us = self._table.advance(client, self._clock_us(), self._step_us, self._ahead_us)
        if wait_us:
            raise RateLimited(
                f"expected at most {self._rate_per_s:g} requests per second from one client, received more;"
                " send them more slowly",
                retry_after_s=wait_us / 1e6,
            )

    def enter(self, client: str) -> None:
        """Counts a request as being under way; `leave` has to follow.

        Args:
            client: Who sends it.

        Raises:
            RateLimited: As many as may be are.
        """
        if not self._at_once:
            return
        under_way = self._under_way.get(client, 0)
        if under_way >= self._at_once:
            raise RateLimited(
                f"expected at most {self._at_once} requests of one client at a time, received one more; await an answer"
            )
        self._under_way[client] = under_way + 1

    def leave(self, client: str) -> None:
        """Forgets a request that `enter` counted.

        Args:
            client: Who sent it.
        """
        if not self._at_once:
            return
        left = self._under_way[client] - 1
        if left:
            self._under_way[client] = left
        else:
            del self._under_way[client]


@contextlib.contextmanager
def shared_table(*, wanted: bool) -> Iterator[None]:
    """Has the workers that are started meanwhile share one table.

    Args:
        wanted: Whether there is a rate to keep.
    """
    if not wanted:
        yield
        return
    table = RateTable.create()
    os.environ[TABLE_VARIABLE] = str(table.descriptor)
    try:
        yield
    finally:
        del os.environ[TABLE_VARIABLE]
        table.close()


def passed_on() -> tuple[int, ...]:
    """The descriptors that a worker has to inherit for it."""
    named = os.environ.get(TABLE_VARIABLE)
    return () if named is None else (int(named),)


def open_table() -> RateTable:
    """The table of the supervisor that started this process, or a new one."""
    named = os.environ.pop(TABLE_VARIABLE, None)
    return RateTable.create() if named is None else RateTable(int(named))
