"""What a supervisor and a worker say to each other, over one socket pair.

    supervisor ──ping, accept + connection, render + stream, rejected, drain, stop──▶ worker
               ◀──ready, failed, pong, rejected, metrics + stream────────────────────
               ◀──connections closed: one number in shared memory────────────────────

Messages are JSON objects in packets of a SOCK_SEQPACKET pair, so they stay whole and in order: every connection given
before `stop` is served before the worker ends. An end that goes away is read as end of file by the other.
"""

import asyncio
import fcntl
import json
import mmap
import os
import resource
import socket
from dataclasses import dataclass
from typing import Any, Final, Self

PACKET_BYTES: Final = 16_384

# The kernel's table of a process's files grows up to the highest; half a megabyte for so many.
DESCRIPTORS: Final = 65_536

# Ends a stream of metrics; without it the worker died while it wrote.
END: Final = b"# EOF\n"

Message = dict[str, Any]


class Counter:
    """One number that one process writes and another reads, in memory both map."""

    def __init__(self, descriptor: int) -> None:
        """Maps the counter.

        Args:
            descriptor: A memory file of 8 bytes, from `Counter.create` or inherited.
        """
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, 8)
        self._cell = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> Self:
        """A new counter at 0."""
        descriptor = os.memfd_create("shoal-counter")
        os.ftruncate(descriptor, 8)
        return cls(descriptor)

    @property
    def value(self) -> int:
        """The number now."""
        return self._cell[0]

    @value.setter
    def value(self, value: int) -> None:
        self._cell[0] = value

    def close(self) -> None:
        """Unmaps the memory and closes its file."""
        self._cell.release()
        self._map.close()
        os.close(self.descriptor)


@dataclass(frozen=True)
class Link:
    """One end of a pair.

    Args:
        end: A non-blocking SOCK_SEQPACKET socket.
        closed: How many of the connections given to the worker have ended since.
    """

    end: socket.socket
    closed: Counter

    def send(self, message: Message, connection: socket.socket | None = None) -> None:
        """Sends one message, and a connection with it.

        Raises:
            BlockingIOError: The other end does not read.
            OSError: The other end is gone.
        """
        packet = json.dumps(message).encode()
        if connection is None:
            self.end.send(packet)
        else:
            socket.send_fds(self.end, [packet], [connection.fileno()])

    def receive_nowait(self) -> tuple[Message, socket.socket | None] | None:
        """The next message with the connection that came with it, or None when the other end is gone.

        Raises:
            BlockingIOError: There is none yet.
        """
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.end, PACKET_BYTES, 1)
        except ConnectionError:
            return None
        if not packet:
            return None
        return json.loads(packet), _received(descriptors[0]) if descriptors else None

    def close(self) -> None:
        """Closes this end."""
        self.end.close()
        self.closed.close()


def make_pair() -> tuple[Link, socket.socket]:
    """A link for the supervisor, and the socket that its worker inherits."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(0)
    # Room for a burst of connections while the worker is in a batch; the kernel doubles it.
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return Link(here, Counter.create()), there


def _received(descriptor: int) -> socket.socket:
    """The socket that came with a message.

    What comes this way is inheritable, and `recv_fds` takes no flag against it. A worker started in that moment would
    keep it open: whoever reads it to its end would wait for as long as that worker lives.
    """
    os.set_inheritable(descriptor, False)  # noqa: FBT003  its only form
    return socket.socket(fileno=descriptor)


def moved_up(descriptor: int) -> int:
    """Gives a descriptor a number above all that this process will have.

    Linux lets go of a killed process's files from the highest number down. With the link above the connections the
    supervisor knows of a death before any client does, and gives what comes to the others: a client that connects anew
    within the same tenth of a millisecond is not lost twice.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    highest = (min(limit, DESCRIPTORS) if limit != resource.RLIM_INFINITY else DESCRIPTORS) - 1
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, highest)
    except OSError:  # taken: then it stays where it is, and a client may have to connect twice
        return descriptor
    os.close(descriptor)
    return moved


async def read_all(stream: socket.socket) -> bytes:
    """Reads a stream to its end and closes it."""
    loop, parts = asyncio.get_running_loop(), bytearray()
    with stream:
        stream.settimeout(0)
        while part := await loop.sock_recv(stream, 1 << 16):
            parts += part
    return bytes(parts)
