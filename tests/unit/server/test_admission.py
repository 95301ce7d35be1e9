import asyncio
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from server.admission import MIN_RETRY_S, Admission
from server.batcher import Batcher, BatcherOptions
from server.deadline import Deadline
from server.errors import DeadlineExceeded, Overloaded, ShoalError
from server.tensors import Array
from tests import virtual_time
from tests.batcher_scenarios import MS, FakeEngine, rows_of

BUDGET_S = 0.2


@dataclass
class FakeQueue:
    wait_s: float = 0.0
    run_s: float = 0.01
    idle: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    run_rows: list[int] = field(default_factory=list)

    def predicted_wait_s(self, rows: int, *, priority: int = 0) -> float:
        self.asked.append((rows, priority))
        return self.wait_s

    def predicted_run_s(self, rows: int) -> float:
        self.run_rows.append(rows)
        return self.run_s


def test_what_will_be_in_time_is_admitted() -> None:
    admission = Admission(safety=2.0)
    queue = FakeQueue(wait_s=0.0949)
    admission.admit(queue, 3, Deadline(10 + BUDGET_S), 10.0, priority=4)
    admission.admit(queue, 2, Deadline(10 + BUDGET_S), 10.0)
    assert queue.asked == [(3, 4), (2, 0)]
    assert queue.run_rows == [3, 2]
    assert (admission.admitted, admission.refused) == (2, 0)


def test_what_will_be_late_is_refused_with_the_time_to_come_back() -> None:
    admission = Admission(safety=2.0)
    with pytest.raises(Overloaded, match=r"within 2000 ms.*wait alone would be 2995 ms") as refusal:
        admission.admit(FakeQueue(wait_s=2.995), 1, Deadline(12.0), 10.0)
    # After 2 s the wait is down to 995 ms, and 2 × 995 + 10 is just in time.
    assert refusal.value.retry_after_s == pytest.approx(2.0)
    with pytest.raises(Overloaded):
        admission.admit(FakeQueue(wait_s=2.995), 1, Deadline(12.0), 10.0)
    assert (admission.admitted, admission.refused) == (0, 2)


def test_a_narrow_miss_is_not_told_to_come_back_at_once() -> None:
    with pytest.raises(Overloaded) as refusal:
        Admission(safety=2.0).admit(FakeQueue(wait_s=0.0951), 1, Deadline(BUDGET_S), 0.0)
    assert refusal.value.retry_after_s == MIN_RETRY_S


def test_the_exact_fit_is_admitted() -> None:
    Admission(safety=2.0).admit(FakeQueue(wait_s=0.25, run_s=0.5), 1, Deadline(1.0), 0.0)


def test_a_passed_deadline_is_no_overload() -> None:
    admission = Admission()
    for left_s in (-1.5, 0.0):
        with pytest.raises(DeadlineExceeded, match=f"passed {-1000 * left_s:.0f} ms ago"):
            admission.admit(FakeQueue(idle=True), 1, Deadline(5.0 + left_s), 5.0)
    assert (admission.admitted, admission.refused) == (0, 0)


def test_without_a_deadline_nothing_is_too_late() -> None:
    admission = Admission()
    admission.admit(FakeQueue(wait_s=math.inf), 1, None, 0.0)
    assert admission.admitted == 1


def test_an_idle_engine_gets_work_however_dear_it_looks() -> None:
    Admission().admit(FakeQueue(wait_s=9.0, run_s=9.0, idle=True), 1, Deadline(BUDGET_S), 0.0)


class DriftingEngine(FakeEngine):
    """Costs other than it says: by a factor, by noise, or by a step in the middle."""

    def __init__(self, *, factor: float = 1.0, noise: float = 0.0) -> None:
        super().__init__(batch_s=1 * MS, row_s=0.2 * MS, max_batch_rows=32)
        self.factor = factor
        self.noise = noise
        self.random = random.Random(11)

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        x = inputs["x"]
        seconds = self.cost_s(len(x)) * self.factor
        await asyncio.sleep(seconds * (1 + self.noise * self.random.expovariate(1.0)))
        return {"y": x[:, 0], "z": x}

    @property
    def capacity_rows_per_s(self) -> float:
        return 32 / (self.cost_s(32) * self.factor * (1 + self.noise))


@dataclass
class Load:
    """What an open-loop load met."""

    latencies_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)
    errors: list[ShoalError] = field(default_factory=list)


async def offer(engine: DriftingEngine, load: float, seconds: float, *, rows: int = 1) -> tuple[Load, Load]:
    """Offers `load` times the capacity for a while, then a fifth of it for a second."""
    loop = asyncio.get_running_loop()
    batcher = Batcher(engine, BatcherOptions(max_batch_rows=32), clock=loop.time)
    admission = Admission()
    arrivals = random.Random(7)

    async def call(met: Load) -> None:
        now_s = loop.time()
        deadline = Deadline(now_s + BUDGET_S)
        try:
            admission.admit(batcher, rows, deadline, now_s)
        except Overloaded:
            met.refusals_s.append(loop.time() - now_s)
            return
        try:
            await batcher.submit(rows_of(range(rows)), deadline=deadline)
        except ShoalError as error:
            met.errors.append(error)
        met.latencies_s.append(loop.time() - now_s)

    peak, after = Load(), Load()
    async with asyncio.TaskGroup() as group:
        for met, share, until_s in ((peak, load, seconds), (after, 0.2, seconds + 1)):
            while loop.time() < until_s:
                group.create_task(call(met))
                await asyncio.sleep(arrivals.expovariate(share * engine.capacity_rows_per_s / rows))
    await batcher.close()
    return peak, after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "rows"),
    [
        pytest.param(DriftingEngine(), 1, id="as it says"),
        pytest.param(DriftingEngine(), 7, id="seven rows"),
        pytest.param(DriftingEngine(), 50, id="more rows than a batch"),
        pytest.param(DriftingEngine(factor=1.5), 1, id="half as slow again"),
        pytest.param(DriftingEngine(factor=4.0), 1, id="four times as slow"),
        pytest.param(DriftingEngine(noise=0.5), 1, id="noisy"),
    ],
)
def test_at_twice_the_capacity_every_admitted_request_is_in_time_and_goodput_is_whole(
    engine: DriftingEngine, rows: int
) -> None:
    seconds = 2.0
    peak, after = virtual_time.run(offer(engine, 2.0, seconds, rows=rows))
    assert peak.errors == []
    assert max(peak.latencies_s) <= BUDGET_S
    assert len(peak.latencies_s) * rows >= 0.9 * engine.capacity_rows_per_s * seconds
    assert max(peak.refusals_s) == 0.0
    # Back to normal within a second: the last of the quiet second wait for a batch or two.
    quiet = sorted(after.latencies_s[len(after.latencies_s) // 2 :])
    assert quiet[-1] <= 5 * engine.cost_s(32) * engine.factor


def test_under_capacity_nothing_is_refused() -> None:
    peak, _ = virtual_time.run(offer(DriftingEngine(), 0.8, 0.5))
    assert peak.refusals_s == []
    assert peak.errors == []
