"""Requests at the times of a Poisson process, by a generator that is cheap enough to come in time.

    times, drawn beforehand ──due──▶ the socket that was free last ──▶ server
                                     epoll ◀── answers ──────────────┘

It does what `http_load.open_loop` does without an event loop, so that it comes in time beside a busy server. It never
waits for the server, so it cannot hide that the server is late, and it tells how late it came itself.

On a core of its own it spins, so that an answer never has to wake it: in a virtual machine that is an interrupt of
another core, at the server's expense. On shared cores it sleeps for a tick, then sends and reads what has become due,
and asks the system to run it before everything else (SCHED_FIFO), as a client on another machine would be. Where that
is not allowed, its lateness tells.
"""

import contextlib
import gc
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Self
from urllib.parse import urlsplit

import numpy as np

from benchmarks.http_load import GONE, Question, Tally, whole_answer

BURST: Final = 4  # sent at most before answers are read again
READ_BYTES: Final = 1 << 16
GIVE_UP_S: Final = 20.0  # for the answers that are missing in the end


class _Line:
    """One kept connection, with at most one request under way."""

    __slots__ = ("busy", "due_s", "fd", "right", "socket", "text")

    def __init__(self, place: tuple[str, int]) -> None:
        self.socket = socket.create_connection(place)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.fd = self.socket.fileno()
        self.text = self.right = b""
        self.due_s = 0.0
        self.busy = False


def arrival_times_s(rate_per_s: float, seconds: float, seed: int = 0) -> list[float]:
    """The times of a Poisson process, from 0 on.

    Args:
        rate_per_s: Mean arrivals in a second.
        seconds: How long.
        seed: Of the random numbers.
    """
    generator = np.random.default_rng(seed)
    many = int(rate_per_s * seconds + 10 * (rate_per_s * seconds) ** 0.5 + 10)
    times = generator.exponential(1 / rate_per_s, many).cumsum()
    return [float(one) for one in times[times < seconds]]


def ask_at_random(
    url: str,
    questions: Sequence[Question],
    *,
    rate_per_s: float,
    seconds: float,
    connections: int,
    tick_s: float,
    seed: int = 0,
) -> Tally:
    """Sends requests at the times of a Poisson process, and waits for all answers.

    Args:
        url: The server.
        questions: Asked in turn.
        rate_per_s: Mean arrivals in a second.
        seconds: How long.
        connections: Opened beforehand. A request that finds all of them busy waits for one, which its time counts in.
        tick_s: What it sleeps between two looks at the clock and at what has come; 0 spins, on a core of its own.
        seed: Of the arrival times.
    """
    parts = urlsplit(url)
    place = parts.hostname or "127.0.0.1", parts.port or 80
    with _Pool(place, connections) as pool, _undisturbed(before_all=tick_s > 0):
        return _Run(pool, questions).send_all(arrival_times_s(rate_per_s, seconds, seed), tick_s)


@contextlib.contextmanager
def _undisturbed(*, before_all: bool) -> Iterator[None]:
    """Without collections of garbage, and before all other processes where that is wanted and allowed."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    gc.disable()
    if before_all:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)
        gc.enable()


class _Pool:
    """The connections, and an epoll that tells which have something to read."""

    def __init__(self, place: tuple[str, int], count: int) -> None:
        self._place = place
        self.epoll = select.epoll()
        self.by_fd: dict[int, _Line] = {}
        self.idle: list[_Line] = []
        for _ in range(count):
            self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.by_fd.values():
            line.socket.close()
        self.epoll.close()

    def open(self) -> None:
        """Adds a connection."""
        line = _Line(self._place)
        self.by_fd[line.fd] = line
        self.epoll.register(line.fd, select.EPOLLIN)
        self.idle.append(line)

    def replace(self, line: _Line) -> None:
        """Another connection for one that ended, if the server takes one."""
        self.epoll.unregister(line.fd)
        del self.by_fd[line.fd]
        line.socket.close()
        with contextlib.suppress(OSError):
            self.open()


class _Run:
    def __init__(self, pool: _Pool, questions: Sequence[Question]) -> None:
        self._pool = pool
        self._questions = questions
        self._asked = 0
        self._under_way = 0
        self._waiting: deque[float] = deque()  # due, with all connections busy
        self._tally = Tally()

    def send_all(self, times_s: Sequence[float], tick_s: float) -> Tally:
        """The loop: what is due is sent, a few at a time; then answers are read, without waiting for one."""
        clock, late, poll = time.monotonic, self._tally.late_s, self._pool.epoll.poll
        start_s = clock() + 0.01
        coming = iter([start_s + one for one in times_s])
        due_s = next(coming, float("inf"))
        give_up_s = start_s + (times_s[-1] if times_s else 0.0) + GIVE_UP_S
        while due_s < float("inf") or self._under_way or self._waiting:
            now_s = clock()
            sent = 0
            while due_s <= now_s and sent < BURST:
                late.append(now_s - due_s)
                self._send(due_s)
                due_s, now_s, sent = next(coming, float("inf")), clock(), sent + 1
            for fd, _ in poll(0):
                self._read(self._pool.by_fd[fd])
            if now_s > give_up_s:
                break
            if tick_s and due_s > now_s:
                time.sleep(tick_s)
        return self._finished()

    def _send(self, due_s: float) -> None:
        """Sends the next question on a free connection, or when there is one."""
        if not self._pool.idle:
            self._waiting.append(due_s)
            return
        # The one used last, as clients' pools do (urllib3, aiohttp, Go): so only a surge uses all of them.
        line, question = self._pool.idle.pop(), self._questions[self._asked % len(self._questions)]
        self._asked += 1
        self._under_way += 1
        line.due_s, line.right, line.busy = due_s, question.right, True
        try:
            sent = line.socket.send(question.request)
            if sent < len(question.request):  # more than the socket's buffer holds: rare, and worth the wait
                line.socket.settimeout(None)
                line.socket.sendall(question.request[sent:])
                line.socket.settimeout(0)
        except OSError:
            self._gone(line)

    def _read(self, line: _Line) -> None:
        try:
            data = line.socket.recv(READ_BYTES)
        except OSError:
            data = b""
        line.text += data
        if not data:  # the server has closed it
            self._gone(line)
        elif (found := whole_answer(line.text)) is not None:
            status, body, closing = found
            line.text = b""
            self._settle(line, status, right=line.right in body)
            if closing:
                self._pool.replace(line)
            else:
                self._pool.idle.append(line)
        while self._waiting and self._pool.idle:
            self._send(self._waiting.popleft())

    def _gone(self, line: _Line) -> None:
        if line.busy:
            self._settle(line, GONE, right=False)
        else:
            self._pool.idle.remove(line)
        self._pool.replace(line)

    def _settle(self, line: _Line, status: int, *, right: bool) -> None:
        line.busy = False
        self._under_way -= 1
        self._tally.add(line.due_s, time.monotonic() - line.due_s, status, right=right)

    def _finished(self) -> Tally:
        """What is still missing counts as unanswered."""
        for line in self._pool.by_fd.values():
            if line.busy:
                self._settle(line, GONE, right=False)
        for due_s in self._waiting:
            self._tally.add(due_s, time.monotonic() - due_s, GONE, right=False)
        return self._tally
