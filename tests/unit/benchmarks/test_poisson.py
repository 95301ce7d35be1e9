"""The search for the highest rate that is answered in time: what it counts, and what it says that it found."""

import argparse
import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from benchmarks import half_load, poisson
from benchmarks.http_load import GONE, OK, REFUSED, Tally
from benchmarks.server_process import Address


def tally(*others: tuple[int, bool], answered: int) -> Tally:
    """So many right answers after 1 ms, and others by status and whether they were right."""
    found = Tally(late_s=[0.0])
    for status, right in [(OK, True)] * answered + list(others):
        found.add(0.0, 0.001, status, right=right)
    return found


def tried(monkeypatch: pytest.MonkeyPatch, outcome: Tally) -> list[int]:
    """Has every try end so; the seeds that were taken are appended to what is returned."""
    seeds: list[int] = []

    def ask_at_random(*_: object, seed: int, **__: object) -> Tally:
        seeds.append(seed)
        return outcome

    monkeypatch.setattr(poisson, "ask_at_random", ask_at_random)
    monkeypatch.setattr(poisson, "PAUSE_S", 0.0)
    return seeds


@pytest.mark.parametrize("odd", [(REFUSED, True), (GONE, False), (OK, False)], ids=["refused", "gone", "wrong"])
def test_what_is_not_answered_rightly_is_infinitely_late_and_a_p99_bears_one_in_a_hundred(
    monkeypatch: pytest.MonkeyPatch, odd: tuple[int, bool]
) -> None:
    load = poisson.Load("", [], 1, 0)
    tried(monkeypatch, tally(odd, answered=99))
    borne = poisson.ask(load, 100, 15)
    assert (borne.p99_ms, borne.lost_share, borne.holds(15)) == (1.0, 0.01, True)
    tried(monkeypatch, tally(odd, odd, answered=98))
    assert not poisson.ask(load, 100, 15).holds(1e9)


def test_a_quantile_of_what_was_felt_is_that_of_its_times_where_all_is_well() -> None:
    found = Tally()
    for took_ms in range(1, 101):
        found.add(0.0, took_ms / 1000, OK, right=True)
    assert [found.felt_ms(share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert np.isinf(tally((REFUSED, False), answered=99).felt_ms(1.0))


def test_no_two_tries_have_the_same_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = tried(monkeypatch, tally(answered=9))
    load = poisson.Load("", [], 1, 0)
    poisson.search(load, 15, 1000, 3)
    asyncio.run(poisson.again(load, 15, 500, engine, 3))
    assert len(set(seeds)) == len(seeds) == 6


def test_one_moment_in_which_the_host_was_away_does_not_decide_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poisson, "PAUSE_S", 0)
    away = tally(answered=9)
    away.took_s = [1.0] * len(away.took_s)
    answers = iter([away, tally(answered=9), away, away, tally(answered=9)])
    monkeypatch.setattr(poisson, "ask_at_random", lambda *_, **__: next(answers))
    probes = poisson.search(poisson.Load("", [], 1, 0), 15, 1000, 3)
    assert [(probe.rate_per_s, probe.holds(15)) for probe in probes] == [(500, True), (750, False), (625, True)]


def test_rounds_at_half_load_have_arrivals_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def ask_at_random(*_: object, seed: int = 0, **__: object) -> Tally:
        seeds.append(seed)
        return tally(answered=2)

    async def peak(*_: object, **__: object) -> float:
        return 100.0

    async def closed_loop(*_: object, **__: object) -> Tally:
        return tally(answered=2)

    for name, fake in {"ask_at_random": ask_at_random, "peak_per_s": peak, "closed_loop": closed_loop}.items():
        monkeypatch.setattr(half_load, name, fake)
    arguments = argparse.Namespace(seconds=1.0, share=0.5)
    for seed in (3, 4):
        asyncio.run(half_load.one_round(Address("", "", 0), [], arguments, seed))
    assert seeds == [3, 4]


async def engine() -> float:
    return 1000.0


def rounds(monkeypatch: pytest.MonkeyPatch, holds: Sequence[bool]) -> dict[str, object]:
    outcomes: Iterator[bool] = iter(holds)

    def ask(load: object, rate_per_s: float, bound_ms: float) -> poisson.Probe:
        return poisson.Probe(rate_per_s, 3.0 if next(outcomes) else 99.0, 0.1, valid=True)

    monkeypatch.setattr(poisson, "ask", ask)
    return asyncio.run(poisson.again(poisson.Load("", [], 1, 0), 15, 500, engine, len(holds)))


def test_a_round_that_does_not_hold_slows_the_next_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rounds(monkeypatch, [True, False, True])
    assert found["rates_per_s"] == [500, 485]
    assert (found["rate_per_s"], found["shares"], found["rounds_failed"]) == (485, [0.5, 0.485], 1)


def test_a_rate_that_was_not_tried_is_never_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounds(monkeypatch, [True, False])["rate_per_s"] == 500
    nothing = rounds(monkeypatch, [False, False])
    assert (nothing["rate_per_s"], nothing["shares"], nothing["rounds_failed"]) == (0.0, [], 2)


def test_the_servers_own_budget_is_above_every_bound_and_flags_of_the_command_have_the_last_word() -> None:
    flags = poisson.server_flags("--latency-budget-ms 50 --workers 1")
    budgets = [float(flags[at + 1]) for at, word in enumerate(flags) if word == "--latency-budget-ms"]
    assert budgets[0] > 10 * max(poisson.AIMS)
    assert flags[-4:] == ["--latency-budget-ms", "50", "--workers", "1"]
