from dataclasses import dataclass

from server.transports.http_patience import Patience


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(eq=False)
class Connection:
    what: object | None = None
    closed: bool = False

    def unfinished(self) -> object | None:
        return self.what

    def give_up(self) -> None:
        self.closed = True


def watch(patience: Patience, clock: Clock, seconds: int) -> None:
    for _ in range(seconds):
        patience.look()
        clock.now_s += 1


def test_what_stays_unfinished_for_too_long_is_ended_and_nothing_else_is() -> None:
    clock, slow, idle = Clock(), Connection("head"), Connection()
    patience = Patience(lambda: [slow, idle], 10, clock)
    watch(patience, clock, 10)
    assert [slow.closed, idle.closed] == [False, False]
    patience.look()
    assert [slow.closed, idle.closed] == [True, False]


def test_one_thing_after_the_other_is_not_one_thing_for_long() -> None:
    clock, busy = Clock(), Connection()
    patience = Patience(lambda: [busy], 3, clock)
    for number in range(20):
        busy.what = f"body {number}"
        patience.look()
        clock.now_s += 2
    assert not busy.closed


def test_who_finishes_begins_anew() -> None:
    clock, connection, body = Clock(), Connection(), "body"
    patience = Patience(lambda: [connection], 3, clock)
    for what in (body, body, None, body, body):
        connection.what = what
        patience.look()
        clock.now_s += 1
    assert not connection.closed


def test_connections_that_are_gone_are_forgotten() -> None:
    clock, connections = Clock(), [Connection("head") for _ in range(5)]
    patience = Patience(lambda: connections, 3, clock)
    patience.look()
    connections.clear()
    patience.look()
    assert patience._seen == {}
