from server.congestion import BURST, FEWEST, STANDING, STANDS_AFTER, UNMEASURED, WINDOW_S, Congestion

BUDGET_S = 0.2


def work(congestion: Congestion, *, per_s: float, seconds: float, under_way: int, from_s: float = 0.0) -> float:
    """Answers requests at a steady rate while so many are always under way; returns the time after."""
    while congestion.under_way < under_way:
        congestion.enter()
    now_s = from_s
    for _ in range(int(per_s * seconds)):
        now_s += 1 / per_s
        congestion.enter()
        congestion.leave(now_s, answered=True)
    return now_s


def test_the_limit_is_what_is_answered_in_a_share_of_the_budget() -> None:
    congestion = Congestion(BUDGET_S)
    work(congestion, per_s=4000, seconds=3, under_way=100)
    assert abs(congestion.limit - 4000 * BUDGET_S * BURST) <= 4000 * BUDGET_S * BURST * 0.02


def test_a_standing_queue_is_allowed_less_until_it_is_gone() -> None:
    congestion = Congestion(BUDGET_S)
    standing = 4000 * BUDGET_S * STANDING
    now_s = work(congestion, per_s=4000, seconds=3, under_way=300)
    assert abs(congestion.limit - standing) <= standing * 0.02
    while congestion.under_way > standing * 0.7:
        congestion.leave(now_s, answered=False)
    now_s = work(congestion, per_s=4000, seconds=2, under_way=0, from_s=now_s)
    assert abs(congestion.limit - standing) <= standing * 0.02, "shorter, but it still stands"
    while congestion.under_way > standing * 0.3:
        congestion.leave(now_s, answered=False)
    work(congestion, per_s=4000, seconds=1, under_way=0, from_s=now_s)
    assert congestion.limit > 1.3 * standing


def test_a_long_moment_is_no_standing_queue() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=4000, seconds=3, under_way=100)
    burst = congestion.limit
    now_s = work(congestion, per_s=4000, seconds=WINDOW_S * (STANDS_AFTER - 0.5), under_way=burst, from_s=now_s)
    assert congestion.limit >= 0.98 * burst
    work(congestion, per_s=4000, seconds=WINDOW_S * 2, under_way=burst, from_s=now_s)
    assert congestion.limit <= 1.02 * 4000 * BUDGET_S * STANDING


def test_a_standing_queue_that_was_short_for_a_moment_still_stands() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=4000, seconds=3, under_way=300)
    standing = congestion.limit
    while congestion.under_way > FEWEST // 4:
        congestion.leave(now_s, answered=False)
    now_s = work(congestion, per_s=4000, seconds=WINDOW_S * (STANDS_AFTER - 2), under_way=FEWEST // 4, from_s=now_s)
    assert congestion.limit <= 1.02 * standing
    work(congestion, per_s=4000, seconds=WINDOW_S * 4, under_way=FEWEST // 4, from_s=now_s)
    assert congestion.limit >= 2 * standing


def test_it_is_full_at_the_limit_and_not_below() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=4000, seconds=3, under_way=100)
    while congestion.under_way < congestion.limit - 1:
        congestion.enter()
    full_below_it = congestion.full
    congestion.enter()
    assert not full_below_it
    full_at_the_limit = congestion.full
    congestion.leave(now_s, answered=True)
    assert full_at_the_limit
    assert not congestion.full


def test_an_idle_server_learns_nothing_from_few_requests() -> None:
    congestion = Congestion(BUDGET_S)
    work(congestion, per_s=10, seconds=30, under_way=1)
    assert congestion.limit == UNMEASURED


def test_a_window_that_ran_out_of_work_does_not_count() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=4000, seconds=3, under_way=100)
    learnt = congestion.limit
    for _ in range(50):
        while congestion.under_way:
            congestion.leave(now_s, answered=True)
        now_s = work(congestion, per_s=300, seconds=0.06, under_way=100, from_s=now_s)
    assert congestion.limit >= learnt * 0.9


def test_refusals_are_no_answers() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=4000, seconds=3, under_way=100)
    learnt = congestion.limit
    for _ in range(4000):
        now_s += 1 / 4000
        congestion.enter()
        congestion.leave(now_s, answered=False)
        congestion.enter()
        congestion.leave(now_s, answered=True)
    assert congestion.limit <= learnt * 1.02


def test_a_slow_model_cannot_starve_itself() -> None:
    congestion = Congestion(BUDGET_S)
    work(congestion, per_s=100, seconds=5, under_way=100)
    assert congestion.limit == FEWEST


def test_a_queue_that_is_long_only_for_a_machine_that_became_slower_stands() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=6000, seconds=3, under_way=100)
    learnt = congestion.limit
    short_at_the_learnt_rate = int(6000 * BUDGET_S * STANDING * 0.8)
    work(
        congestion, per_s=2000, seconds=WINDOW_S * (STANDS_AFTER + 2), under_way=short_at_the_learnt_rate, from_s=now_s
    )
    assert congestion.limit < learnt * 0.7


def test_a_queue_longer_than_any_burst_may_be_stands_at_once() -> None:
    congestion = Congestion(BUDGET_S)
    now_s = work(congestion, per_s=6000, seconds=3, under_way=100)
    # as at the onset of an overload: what was let in at the learnt rate takes three times as long as it may
    work(congestion, per_s=2000, seconds=WINDOW_S * (STANDS_AFTER - 1.5), under_way=congestion.limit, from_s=now_s)
    assert congestion.limit <= 1.02 * 6000 * BUDGET_S * STANDING
