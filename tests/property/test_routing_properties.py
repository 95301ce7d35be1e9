"""Whatever the policy, a request goes to one ready version, always the same for the same key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routing import Share, Split, TrafficPolicy, exposed, parse_policy, route

versions = st.integers(1, 5)
percents = st.floats(0, 100)
shares = st.builds(Share, version=versions, percent=percents)
ready_sets = st.sets(versions, min_size=1)
splits = st.dictionaries(versions, st.floats(0, 20), max_size=5).map(lambda percent: Split(percent=percent))
policies = st.one_of(
    st.builds(
        TrafficPolicy, default=st.none() | versions, canary=st.none() | shares, shadow=st.none() | shares, ab=st.none()
    ),
    st.builds(TrafficPolicy, default=st.none() | versions, ab=splits, shadow=st.none() | shares, canary=st.none()),
)


@pytest.mark.slow
@given(policy=policies, ready=ready_sets, key=st.text(st.characters()))
def test_answer_comes_from_a_ready_version_that_the_policy_exposes(
    policy: TrafficPolicy, ready: set[int], key: str
) -> None:
    found = route(policy, ready, key)
    assert found.version in ready
    assert found.version in exposed(policy, ready)
    assert found.shadow is None or (found.shadow in ready and found.shadow != found.version)


@pytest.mark.slow
@given(policy=policies, ready=ready_sets, key=st.text(min_size=1))
def test_key_is_sticky(policy: TrafficPolicy, ready: set[int], key: str) -> None:
    again = parse_policy(policy.model_dump_json().encode())
    assert route(policy, ready, key) == route(again, sorted(ready), key)


@given(key=st.text(min_size=1), low=percents, high=percents)
def test_growing_canary_never_gives_a_key_back(key: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    policies = [TrafficPolicy(default=1, canary=Share(version=2, percent=percent)) for percent in (low, high)]
    before, after = (route(policy, {1, 2}, key).version for policy in policies)
    assert before == 1 or after == 2


@pytest.mark.slow
@given(policy=policies, ready=ready_sets, draw=st.floats(0, 1, exclude_max=True))
def test_drawn_request_is_answered_too(policy: TrafficPolicy, ready: set[int], draw: float) -> None:
    assert route(policy, ready, "", draw=lambda: draw).version in exposed(policy, ready)
