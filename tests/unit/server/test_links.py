import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from server.links import Counter, Link, make_pair


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    here, there = make_pair()
    there.settimeout(0)
    other = Link(there, Counter(os.dup(here.closed.descriptor)))
    yield here, other
    here.close()
    other.close()


def test_messages_arrive_whole_and_in_order(pair: tuple[Link, Link]) -> None:
    here, there = pair
    for number in range(50):
        here.send({"op": "ping", "number": number})
    received = [there.receive_nowait() for _ in range(50)]
    assert [message for message, _ in filter(None, received)] == [{"op": "ping", "number": n} for n in range(50)]
    with pytest.raises(BlockingIOError):
        there.receive_nowait()


def test_a_connection_travels_with_its_message(pair: tuple[Link, Link]) -> None:
    here, there = pair
    client, accepted = socket.socketpair()
    with client, accepted:
        here.send({"op": "accept"}, accepted)
    received = there.receive_nowait()
    assert received is not None
    message, connection = received
    assert message == {"op": "accept"}
    assert connection is not None
    # the client was closed above, so its end of file proves that this is the same connection
    with connection:
        assert connection.recv(1) == b""


def test_a_connection_that_came_is_not_passed_on_to_a_process_started_meanwhile(pair: tuple[Link, Link]) -> None:
    here, there = pair
    client, accepted = socket.socketpair()
    with client:
        with accepted:
            here.send({"op": "metrics"}, accepted)
        received = there.receive_nowait()
        assert received is not None
        assert received[1] is not None
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            received[1].close()
            client.settimeout(10)
            assert client.recv(1) == b""  # nobody else holds it
        finally:
            child.kill()
            child.wait()


def test_an_end_that_goes_away_reads_as_none(pair: tuple[Link, Link]) -> None:
    here, there = pair
    here.end.close()
    assert there.receive_nowait() is None


def fill(link: Link) -> None:
    for _ in range(100_000):
        link.send({"op": "ping"})


def test_a_full_link_does_not_block(pair: tuple[Link, Link]) -> None:
    with pytest.raises(BlockingIOError):
        fill(pair[0])


def test_the_counter_is_shared(pair: tuple[Link, Link]) -> None:
    here, there = pair
    there.closed.value += 7
    assert here.closed.value == 7
