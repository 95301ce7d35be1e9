import time

from server.deadline import Deadline


def test_time_left() -> None:
    deadline = Deadline.after(0.2, now_s=10.0)
    assert deadline == Deadline(10.2)
    assert deadline.remaining_s(10.1) > 0
    assert deadline.remaining_s(10.3) < 0
    assert deadline > Deadline(10.1)


def test_the_clock_is_the_monotonic_one() -> None:
    before_s = time.monotonic()
    assert before_s + 5 <= Deadline.after(5).at_s <= time.monotonic() + 5
