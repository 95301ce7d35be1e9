"""The batcher's invariants, under the names that its docstring gives them."""

import asyncio
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batcher import ALARM_STEP_S, BatcherOptions
from server.errors import DeadlineExceeded, Draining, InferenceFailed, Overloaded, PayloadTooLarge
from tests import virtual_time
from tests.batcher_scenarios import MS, ROW_WIDTH, Outcome, Record, Request, play

pytestmark = pytest.mark.slow

EPSILON_S = 1e-9

request_scripts = st.builds(
    Request,
    at_ms=st.integers(0, 12),
    rows=st.integers(1, 11),
    priority=st.sampled_from([0, 0, 0, -1, 5]),
    budget_ms=st.none() | st.integers(0, 15),
    cancel_after_ms=st.none() | st.none() | st.integers(0, 9),
    poisoned=st.sampled_from([False] * 5 + [True]),
)
option_sets = st.builds(
    BatcherOptions,
    max_batch_rows=st.integers(1, 6),
    max_queue_rows=st.sampled_from([8, 20, 1000]),
    max_queue_bytes=st.sampled_from([20 * 8 * ROW_WIDTH, 1 << 20]),
    max_delay_s=st.sampled_from([0.0, 0.0, 2 * MS]),
    max_batch_s=st.sampled_from([0.05, 0.005]),
)
scenarios = st.builds(
    lambda requests, options, batch_ms, row_ms, close_at_ms: virtual_time.run(
        play(requests, options, batch_ms=batch_ms, row_ms=row_ms, close_at_ms=close_at_ms)
    ),
    st.lists(request_scripts, min_size=1, max_size=14),
    option_sets,
    st.integers(1, 5),
    st.integers(0, 2),
    st.none() | st.integers(0, 20),
)
many = settings(max_examples=100, deadline=None)


def expected(outcome: Outcome) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"]:
    numbers = np.array(outcome.numbers, dtype=np.int64)
    return {"y": numbers * 7 + 1, "z": np.repeat(numbers[:, None], ROW_WIDTH, axis=1)}


def queued(outcome: Outcome) -> bool:
    return not isinstance(outcome.error, Overloaded | Draining | PayloadTooLarge)


@many
@given(scenarios)
def test_every_ticket_is_settled_exactly_once_with_its_own_rows(record: Record) -> None:
    # `virtual_time.run` fails where one hangs (Deadlock) or is settled twice (InvalidStateError in the batcher's task).
    for outcome in record.outcomes:
        assert (outcome.result is None) != (outcome.error is None)
        if outcome.result is not None:
            assert outcome.result.outputs.keys() == {"y", "z"}
            for name, array in expected(outcome).items():
                np.testing.assert_array_equal(outcome.result.outputs[name], array)


@many
@given(scenarios)
def test_a_result_is_never_handed_to_another_caller(record: Record) -> None:
    answered = [outcome.result.outputs for outcome in record.outcomes if outcome.result is not None]
    for name in ("y", "z"):
        for one, other in itertools.combinations([outputs[name] for outputs in answered], 2):
            assert not np.shares_memory(one, other)
    before = [{name: array.copy() for name, array in outputs.items()} for outputs in answered]
    for outputs in answered:  # what one caller does to its answer reaches no other
        for array in outputs.values():
            np.add(array, 1, out=array)
    for outputs, copies in zip(answered, before, strict=True):
        for name, array in outputs.items():
            np.testing.assert_array_equal(array, copies[name] + 1)


@many
@given(scenarios)
def test_one_clients_cancel_bad_bytes_or_failure_touches_nobody_else(record: Record) -> None:
    for outcome in record.outcomes:
        raised = any(run.raised for run in record.runs_of(outcome))
        if outcome.result is not None:
            assert not raised
        if isinstance(outcome.error, InferenceFailed):
            assert raised
        if isinstance(outcome.error, asyncio.CancelledError):
            assert outcome.cancelled_event is not None
        if isinstance(outcome.error, DeadlineExceeded):
            assert outcome.settled_s >= outcome.deadline_s - EPSILON_S


@many
@given(scenarios)
def test_an_exception_from_the_model_fails_its_batch_and_never_the_loop(record: Record) -> None:
    for outcome in record.outcomes:
        failed = [run for run in record.runs_of(outcome) if run.raised]
        if not failed:
            continue
        # Nobody hangs: the batch's error, or that of whoever gave up before it.
        assert isinstance(outcome.error, InferenceFailed | asyncio.CancelledError | DeadlineExceeded)
        if isinstance(outcome.error, InferenceFailed):
            assert isinstance(outcome.error.__cause__, RuntimeError)
            assert outcome.settled_s == failed[0].ended_s
        assert failed == record.runs_of(outcome)[-1:], "the rest of a split request was run for nothing"


@many
@given(scenarios)
def test_a_cancelled_or_expired_ticket_costs_the_model_nothing(record: Record) -> None:
    for outcome in record.outcomes:
        for run in record.runs_of(outcome):
            assert run.started_s < outcome.deadline_s
            if outcome.cancelled_event is not None and outcome.result is None:
                assert run.event < outcome.cancelled_event


@many
@given(scenarios)
def test_an_expired_ticket_is_settled_promptly(record: Record) -> None:
    for outcome in record.outcomes:
        if isinstance(outcome.error, DeadlineExceeded):
            late_s = outcome.settled_s - max(outcome.deadline_s, outcome.submitted_s)
            assert late_s <= ALARM_STEP_S + EPSILON_S


@many
@given(scenarios)
def test_arrival_order_holds_inside_a_priority(record: Record) -> None:
    order = {number: outcome.order for outcome in record.outcomes for number in outcome.numbers}
    priority = {number: outcome.request.priority for outcome in record.outcomes for number in outcome.numbers}
    ran = [number for run in record.engine.runs for number in run.rows]
    assert len(ran) == len(set(ran)), "a row ran twice"
    for wanted in {outcome.request.priority for outcome in record.outcomes}:
        same = [(order[number], number) for number in ran if priority[number] == wanted]
        assert same == sorted(same)


@many
@given(scenarios)
def test_a_lower_priority_never_runs_before_a_higher_one_that_waits(record: Record) -> None:
    priority = {number: outcome.request.priority for outcome in record.outcomes for number in outcome.numbers}
    for outcome in filter(queued, record.outcomes):
        last = record.runs_of(outcome)[-1:]
        waited_until = last[0].event if last and outcome.error is None else -1
        for run in record.engine.runs:
            if run.started_s > outcome.submitted_s and run.event < waited_until:
                assert all(priority[number] <= outcome.request.priority for number in run.rows)


@many
@given(scenarios)
def test_close_drains(record: Record) -> None:
    for outcome in record.outcomes:
        if isinstance(outcome.error, Draining):
            assert outcome.submitted_s >= record.closing_s
        elif outcome.submitted_s < record.closing_s and not isinstance(outcome.error, asyncio.CancelledError):
            assert outcome.settled_s <= record.closed_s
    numbers = record.batcher.statistics()
    assert (numbers.queued_rows, numbers.queued_bytes, numbers.running_rows) == (0, 0, 0)


@many
@given(scenarios)
def test_an_idle_engine_takes_what_is_there_at_once(record: Record) -> None:
    if record.batcher._options.max_delay_s:
        return
    submitted_s = {number: outcome.submitted_s for outcome in record.outcomes for number in outcome.numbers}
    ended_s = -math.inf
    for run in record.engine.runs:
        newest_s = max(submitted_s[number] for number in run.rows)
        oldest_s = min(submitted_s[number] for number in run.rows)
        assert run.started_s == max(ended_s, oldest_s)
        assert newest_s <= run.started_s
        ended_s = run.ended_s


@many
@given(scenarios)
def test_a_batch_is_full_when_enough_rows_wait_and_never_fuller(record: Record) -> None:
    options = record.batcher._options
    engine = record.engine
    limit_rows = options.max_batch_rows
    while limit_rows > 1 and engine.cost_s(limit_rows) > options.max_batch_s:
        limit_rows //= 2
    for run, following in itertools.pairwise(engine.runs):
        assert len(run.rows) <= limit_rows
        waited = [outcome for outcome in record.outcomes if not set(outcome.numbers).isdisjoint(following.rows)]
        if all(outcome.submitted_s < run.started_s for outcome in waited):
            assert len(run.rows) == limit_rows
    assert record.batcher.statistics().batch_rows.keys() <= set(range(1, limit_rows + 1))


@many
@given(scenarios)
def test_the_queue_is_bounded_in_rows_and_bytes(record: Record) -> None:
    options = record.batcher._options
    assert all(0 <= rows <= options.max_queue_rows for rows in record.queued_rows)
    for outcome in record.outcomes:
        too_large = outcome.request.rows > min(options.max_queue_rows, options.max_queue_bytes // (8 * ROW_WIDTH))
        closed = outcome.submitted_s > record.closing_s
        if too_large and not closed and outcome.submitted_s < record.closing_s:
            assert isinstance(outcome.error, PayloadTooLarge)


@many
@given(scenarios)
def test_the_statistics_add_up(record: Record) -> None:
    numbers = record.batcher.statistics()
    errors = [type(outcome.error) for outcome in record.outcomes]
    assert numbers.batches == len(record.engine.runs)
    assert numbers.rows == sum(len(run.rows) for run in record.engine.runs)
    assert numbers.refused == errors.count(Overloaded)
    gone = errors.count(asyncio.CancelledError)  # some before they had submitted, some when they were settled already
    assert numbers.cancelled <= gone
    assert 0 <= numbers.expired - errors.count(DeadlineExceeded) <= gone - numbers.cancelled
    assert 0 <= numbers.failed - errors.count(InferenceFailed) <= gone - numbers.cancelled
