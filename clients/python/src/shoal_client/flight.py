"""The pictures of one `stream` call that are on their way. No input or output: both gRPC clients steer by it.

    accept ─▶ ready ─▶ launch ─▶ flying ─▶ settle ─▶ Outcome
                ▲                  │
                └──── refused, or the stream broke: half the window, and a wait

Classifying changes nothing on the server, so a picture whose stream broke is sent again on another; one that was
answered never is. A picture that takes long lets the others go AHEAD windows before it, so that what waits for its turn
in `classify_many` is bounded. An answer makes the window grow again, by one for each window's worth of them.
"""

from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import aclosing, closing
from typing import Final

from shoal_client.errors import ConnectionLost, DeadlineExceeded, PayloadTooLarge, Refused, ShoalError
from shoal_client.results import Answer, Outcome
from shoal_client.retries import Clock, RetryPolicy

SMALLEST_WINDOW: Final = 1.0
AHEAD: Final = 8


class Item:
    """One picture's request.

    Args:
        position: Its place in what was given.
        data: The message, as bytes.
    """

    __slots__ = ("data", "position", "round")

    def __init__(self, position: int, data: bytes) -> None:
        self.position = position
        self.data = data
        self.round = 0  # of the flight, when it was launched


class Front:
    """Where the oldest open picture is, and how far others may be ahead of it.

    Args:
        window: Pictures in flight at most.
    """

    def __init__(self, window: int) -> None:
        self._oldest = 0
        self._settled: set[int] = set()  # of those after it
        self._ahead = AHEAD * window

    def lets_in(self, position: int) -> bool:
        """Whether a picture may be taken.

        Args:
            position: Its place.
        """
        return position - self._oldest < self._ahead

    def settle(self, position: int) -> None:
        """Notes that a picture is open no more.

        Args:
            position: Its place.
        """
        self._settled.add(position)
        while self._oldest in self._settled:
            self._settled.remove(self._oldest)
            self._oldest += 1


class Flight:
    """Decides what is sent when.

    Args:
        window: Pictures in flight at most.
        policy: How refusals are met.
        clock: Time and chance.
        timeout_s: Seconds for the whole call; None sets no limit.
    """

    def __init__(self, window: int, policy: RetryPolicy, clock: Clock, timeout_s: float | None) -> None:
        self._largest = self._window = float(window)
        self._policy = policy
        self._clock = clock
        self._timeout_s = timeout_s
        self._ready: deque[Item] = deque()
        self._flying = 0
        self._round = 0
        self._pauses = 0  # since the last answer
        self._stalled_s = self._resume_s = now_s = clock.now_s()
        self._end_s = None if timeout_s is None else now_s + timeout_s
        self._front = Front(window)
        self.accepted = 0
        self.ended = False  # whether the caller has no more pictures

    @property
    def done(self) -> bool:
        """Whether every picture is settled and no more will come."""
        return self.ended and not self._ready and not self._flying

    def wants_more(self) -> bool:
        """Whether a new picture could be sent at once."""
        if self.ended or self._ready or not self._front.lets_in(self.accepted):
            return False
        return self._may_launch()

    def accept(self, data: bytes) -> None:
        """Takes the next picture.

        Args:
            data: Its message, known by `accepted` as it was before.
        """
        self._ready.append(Item(self.accepted, data))
        self.accepted += 1

    def skip(self, error: ShoalError) -> Outcome:
        """Takes the next picture, which cannot be sent.

        Args:
            error: Why.
        """
        self.accepted += 1
        return self._tell(self.accepted - 1, None, error)

    def launch(self) -> Item | None:
        """What to send now, or None."""
        if not self._ready or not self._may_launch():
            return None
        item = self._ready.popleft()
        item.round = self._round
        self._flying += 1
        return item

    def settle(self, item: Item, result: Answer | ShoalError) -> Outcome | None:
        """Takes the server's verdict on one picture.

        Args:
            item: The picture.
            result: The answer, or an error.

        Returns:
            What became of it, or None: it will be sent again.
        """
        self._flying -= 1
        if isinstance(result, Answer):
            self._pauses = 0
            self._window = min(self._largest, self._window + 1 / self._window)
            return self._tell(item.position, result, None)
        if isinstance(result, (Refused, DeadlineExceeded)) and not self._out_of_patience():
            # While the call has time, an expired picture met the server's own budget in its queue: an overload, too.
            self._slow_down(item.round, result.retry_after_s if isinstance(result, Refused) else 0.0)
            self._ready.appendleft(item)
            return None
        return self._tell(item.position, None, result)

    def lose(self, items: Iterable[Item], error: ShoalError) -> list[Outcome]:
        """Takes the end of a stream with these pictures in flight.

        A message over the server's limit ends its stream without a word on which it was; no other that flew there is
        larger than the largest, so that one is too large. The others go on.

        Args:
            items: The pictures.
            error: How the stream ended.

        Raises:
            ShoalError: `error`, where a new stream would end in the same way.
        """
        waiting = sorted(items, key=lambda item: item.position)
        self._flying -= len(waiting)
        outcomes = []
        if isinstance(error, PayloadTooLarge) and waiting:
            largest = max(waiting, key=lambda item: len(item.data))
            waiting.remove(largest)
            outcomes.append(self._tell(largest.position, None, error))
        elif not isinstance(error, (Refused, ConnectionLost)) or self._out_of_patience():
            raise error
        elif waiting:
            advice_s = error.retry_after_s if isinstance(error, Refused) else 0.0
            self._slow_down(max(item.round for item in waiting), advice_s)
        self._ready.extendleft(reversed(waiting))
        return outcomes

    def wait_s(self) -> float | None:
        """How long there is nothing to do unless an answer comes, in seconds; None: until one comes.

        Raises:
            DeadlineExceeded: The call's time is over.
        """
        now_s = self._clock.now_s()
        if self._end_s is not None and now_s >= self._end_s:
            raise DeadlineExceeded(f"not everything was answered within {self._timeout_s:g} s; allow more by timeout_s")
        ends_s = [] if self._end_s is None else [self._end_s]
        if self._resume_s > now_s:
            ends_s.append(self._resume_s)
        return min(ends_s) - now_s if ends_s else None

    def left_s(self) -> float | None:
        """Seconds of the whole call's time that are left; None: no limit."""
        return None if self._end_s is None else max(0.001, self._end_s - self._clock.now_s())

    def _tell(self, position: int, answer: Answer | None, error: ShoalError | None) -> Outcome:
        self._front.settle(position)
        return Outcome(position, answer, error)

    def _may_launch(self) -> bool:
        return self._flying < int(self._window) and self._clock.now_s() >= self._resume_s

    def _out_of_patience(self) -> bool:
        return self._pauses > 0 and self._clock.now_s() - self._stalled_s > self._policy.patience_s

    def _slow_down(self, launched_round: int, advice_s: float) -> None:
        """Once for all that was sent before the refusal was heard of: they met the same queue."""
        if launched_round < self._round:
            return
        now_s = self._clock.now_s()
        if not self._pauses:
            self._stalled_s = now_s
        self._round += 1
        self._window = max(SMALLEST_WINDOW, self._window / 2)
        self._resume_s = now_s + self._policy.delay_s(self._pauses, advice_s, self._clock.draw())
        self._pauses += 1


class Order:
    """Puts outcomes back into the order of the pictures."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Outcome] = {}

    def add(self, outcome: Outcome) -> list[Outcome]:
        """Takes one outcome, and gives all whose turn it is.

        Args:
            outcome: The next by time.
        """
        self._early[outcome.position] = outcome
        due = []
        while self._next in self._early:
            due.append(self._early.pop(self._next))
            self._next += 1
        return due


def in_order(
    outcomes: Generator[Outcome, None, None], *, return_errors: bool
) -> Generator[Answer | ShoalError, None, None]:
    """Gives a stream's answers in the order of its pictures.

    Args:
        outcomes: The stream; it is closed with this generator.
        return_errors: Whether a failed picture yields its error; otherwise it raises it.

    Yields:
        An answer, or an error, for each picture.

    Raises:
        ShoalError: A picture failed, and `return_errors` is off.
    """
    order = Order()
    with closing(outcomes):
        for outcome in outcomes:
            for due in order.add(outcome):
                yield due.error if return_errors and due.error is not None else due.unwrap()


async def in_order_async(
    outcomes: AsyncGenerator[Outcome, None], *, return_errors: bool
) -> AsyncGenerator[Answer | ShoalError, None]:
    """The same for an asynchronous stream.

    Args:
        outcomes: The stream; it is closed with this generator.
        return_errors: Whether a failed picture yields its error; otherwise it raises it.

    Yields:
        An answer, or an error, for each picture.

    Raises:
        ShoalError: A picture failed, and `return_errors` is off.
    """
    order = Order()
    async with aclosing(outcomes):
        async for outcome in outcomes:
            for due in order.add(outcome):
                yield due.error if return_errors and due.error is not None else due.unwrap()
