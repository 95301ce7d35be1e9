"""The generator of random arrivals: its times, what it counts, and that it tells when it came late itself."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise

import pytest

from benchmarks import arrivals, poisson
from benchmarks.arrivals import arrival_times_s, ask_at_random
from benchmarks.http_load import Question, Tally

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASKED = [Question(b"POST / HTTP/1.1\r\n\r\n", b"ok")]
Answering = Callable[[socket.socket], None]


@contextmanager
def listening(answer: Answering) -> Iterator[str]:
    """A server with a thread for each connection, which ends when the client closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with closing(connection):
                while connection.recv(65536):
                    answer(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(answer: Answering, *, rate_per_s: float = 200, connections: int = 4, tick_s: float = 1e-3) -> Tally:
    with listening(answer) as url:
        return ask_at_random(url, ASKED, rate_per_s=rate_per_s, seconds=0.2, connections=connections, tick_s=tick_s)


def test_arrivals_are_a_poisson_process() -> None:
    times = arrival_times_s(1000, 10)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert all(gap > 0 for gap in gaps)
    assert times[-1] < 10
    assert mean == pytest.approx(1e-3, rel=0.05)
    assert spread == pytest.approx(mean, rel=0.05)  # of an exponential distribution


@pytest.mark.parametrize("tick_s", [0.0, 1e-3], ids=["spinning", "sleeping"])
def test_every_arrival_is_answered_once(tick_s: float) -> None:
    tally = ask(lambda connection: connection.sendall(ANSWER), tick_s=tick_s)
    assert len(tally.took_s) == len(tally.late_s) == len(arrival_times_s(200, 0.2))
    assert set(tally.status) == {200}
    assert all(tally.right)


def test_an_answer_in_pieces_is_waited_for_and_a_wrong_one_told() -> None:
    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(ANSWER[:30])
        threading.Event().wait(0.005)
        connection.sendall(ANSWER[30:-2] + b"no")

    tally = ask(answer)
    assert set(tally.status) == {200}
    assert not any(tally.right)


def test_what_waits_for_a_connection_is_asked_too_and_its_wait_counts() -> None:
    def answer(connection: socket.socket) -> None:
        threading.Event().wait(0.01)  # twice the time between two arrivals
        connection.sendall(ANSWER)

    tally = ask(answer, connections=1)
    assert len(tally.took_s) == len(arrival_times_s(200, 0.2))
    assert set(tally.status) == {200}
    assert max(tally.took_s) > 0.05


def test_a_connection_that_ends_is_counted_and_replaced() -> None:
    def answer(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    tally = ask(answer)
    assert len(tally.status) == len(arrival_times_s(200, 0.2))
    assert set(tally.status) == {0}


def test_a_connection_that_the_server_says_it_closes_is_replaced() -> None:
    closing_answer = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    def answer(connection: socket.socket) -> None:
        connection.sendall(closing_answer)
        connection.shutdown(socket.SHUT_RDWR)

    assert set(ask(answer).status) == {200}


def test_what_is_never_answered_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "GIVE_UP_S", 0.1)
    tally = ask(lambda _: None, connections=2)
    assert len(tally.status) == len(arrival_times_s(200, 0.2))
    assert set(tally.status) == {0}


def test_a_generator_that_is_held_up_says_so_and_its_probe_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole_answer(text: bytes) -> tuple[int, bytes, bool]:
        threading.Event().wait(0.02)
        return 200, b"ok", False

    for name, value in {"PAUSE_S": 0.0, "TRIES": 2, "CONNECTIONS": 4}.items():
        monkeypatch.setattr(poisson, name, value)
    monkeypatch.setattr(arrivals, "whole_answer", whole_answer)
    with listening(lambda connection: connection.sendall(ANSWER)) as url:
        assert not poisson.ask(poisson.Load(url, ASKED, 0.2, 1e-3), 200, 15).valid


def test_the_process_is_scheduled_as_before_when_the_load_is_over() -> None:
    ask(lambda connection: connection.sendall(ANSWER))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
