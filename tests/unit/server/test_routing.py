"""How a traffic policy divides requests."""

from collections import Counter

import pytest

from server.routing import LATEST, PolicyError, Route, TrafficPolicy, exposed, parse_policy, route

KEYS = [f"user-{number}" for number in range(4000)]


def policy(text: str) -> TrafficPolicy:
    return parse_policy(text.encode())


def shares(rules: TrafficPolicy, ready: set[int]) -> dict[int, float]:
    counts = Counter(route(rules, ready, key).version for key in KEYS)
    return {version: count / len(KEYS) for version, count in counts.items()}


def test_without_a_policy_the_latest_answers() -> None:
    assert route(LATEST, {1, 3, 2}, "key") == Route(3)


def test_default_answers_while_it_is_ready() -> None:
    rules = policy('{"default": 2}')
    assert route(rules, {1, 2, 3}, "key") == Route(2)
    assert route(rules, {1, 3}, "key") == Route(3)


def test_canary_takes_its_share_and_keeps_its_keys_as_it_grows() -> None:
    small = policy('{"default": 3, "canary": {"version": 4, "percent": 10}}')
    large = policy('{"default": 3, "canary": {"version": 4, "percent": 30}}')
    assert shares(small, {3, 4})[4] == pytest.approx(0.1, abs=0.02)
    assert shares(large, {3, 4})[4] == pytest.approx(0.3, abs=0.03)
    on_canary = {key for key in KEYS if route(small, {3, 4}, key).version == 4}
    assert all(route(large, {3, 4}, key).version == 4 for key in on_canary)


def test_canary_that_is_not_ready_gives_its_share_to_the_default() -> None:
    assert shares(policy('{"default": 3, "canary": {"version": 4, "percent": 50}}'), {2, 3}) == {3: 1.0}


@pytest.mark.parametrize(("percent", "version"), [(0, 3), (100, 4)])
def test_none_and_all_are_exact(percent: int, version: int) -> None:
    rules = policy(f'{{"default": 3, "canary": {{"version": 4, "percent": {percent}}}}}')
    assert shares(rules, {3, 4}) == {version: 1.0}
    assert route(rules, {3, 4}, "", draw=lambda: 0.0).version == version
    assert route(rules, {3, 4}, "", draw=lambda: 1 - 2**-53).version == version


def test_ab_divides_keys_and_the_rest_goes_to_the_default() -> None:
    rules = policy('{"default": 1, "ab": {"name": "trial", "percent": {"3": 25, "4": 50}}}')
    found = shares(rules, {1, 3, 4})
    assert found == {
        1: pytest.approx(0.25, abs=0.03),
        3: pytest.approx(0.25, abs=0.03),
        4: pytest.approx(0.5, abs=0.03),
    }


def test_two_trials_divide_the_same_keys_independently() -> None:
    text = '{"default": 1, "ab": {"name": "%s", "percent": {"3": 50, "4": 50}}}'
    first, second = policy(text % "one"), policy(text % "two")
    both = sum(route(first, {3, 4}, key).version == route(second, {3, 4}, key).version for key in KEYS)
    assert both / len(KEYS) == pytest.approx(0.5, abs=0.03)


def test_two_models_divide_the_same_keys_independently() -> None:
    rules = policy('{"canary": {"version": 4, "percent": 50}, "default": 3}')
    same = sum(route(rules, {3, 4}, key, model="a") == route(rules, {3, 4}, key, model="b") for key in KEYS)
    assert same / len(KEYS) == pytest.approx(0.5, abs=0.03)


def test_a_key_meets_the_same_version_at_every_worker() -> None:
    rules = policy('{"default": 3, "canary": {"version": 4, "percent": 50}}')
    assert [route(rules, {3, 4}, key, model="pets").version for key in ("ada", "bob", "eve", "mia")] == [3, 4, 3, 4]


def test_request_without_a_key_is_drawn() -> None:
    rules = policy('{"default": 3, "canary": {"version": 4, "percent": 10}}')
    assert route(rules, {3, 4}, "", draw=lambda: 0.0999).version == 4
    assert route(rules, {3, 4}, "", draw=lambda: 0.1001).version == 3


def test_shadow_sees_its_share_whoever_answers() -> None:
    rules = policy('{"default": 3, "canary": {"version": 4, "percent": 10}, "shadow": {"version": 5, "percent": 10}}')
    routes = [route(rules, {3, 4, 5}, key) for key in KEYS]
    assert {found.version for found in routes} == {3, 4}
    for version in (3, 4):
        shadowed = [found.shadow == 5 for found in routes if found.version == version]
        assert sum(shadowed) / len(shadowed) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("ready", [{3}, {5}])
def test_shadow_that_is_not_ready_or_answers_itself_is_none(ready: set[int]) -> None:
    assert route(policy('{"shadow": {"version": 5, "percent": 100}}'), ready, "key").shadow is None


@pytest.mark.parametrize(
    ("text", "ready", "expected"),
    [
        ("{}", {1, 2}, {2}),
        ('{"default": 1}', {1, 2}, {1}),
        ('{"default": 9}', {1, 2}, {2}),
        ('{"default": 1, "canary": {"version": 2, "percent": 5}}', {1, 2}, {1, 2}),
        ('{"default": 1, "canary": {"version": 2, "percent": 0}}', {1, 2}, {1}),
        ('{"default": 1, "canary": {"version": 2, "percent": 100}}', {1, 2}, {2}),
        ('{"default": 1, "ab": {"percent": {"2": 50, "3": 50}}}', {1, 2, 3}, {2, 3}),
        ('{"default": 1, "ab": {"percent": {"2": 50, "3": 50}}}', {1, 2}, {1, 2}),
        ('{"default": 1, "shadow": {"version": 2, "percent": 100}}', {1, 2}, {1}),
    ],
)
def test_exposed_versions_are_those_that_can_answer(text: str, ready: set[int], expected: set[int]) -> None:
    assert exposed(policy(text), ready) == expected


def test_policy_names_the_versions_it_needs() -> None:
    assert policy(
        '{"default": 1, "ab": {"percent": {"2": 1, "3": 1}}, "shadow": {"version": 4, "percent": 1}}'
    ).named == {
        1,
        2,
        3,
        4,
    }
    assert policy('{"canary": {"version": 7, "percent": 1}}').named == {7}
    assert LATEST.named == frozenset()


@pytest.mark.parametrize(
    ("versions", "spelled"),
    [('"all"', "all"), ('"latest:2"', "latest:2"), ("[4, 1]", "1,4"), ('{"latest": 3}', "latest:3")],
)
def test_policy_may_say_which_versions_are_loaded(versions: str, spelled: str) -> None:
    assert str(policy(f'{{"versions": {versions}}}').versions) == spelled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file: Invalid JSON"),
        ("[]", "the file: Input should be"),
        ('{"defualt": 3}', "defualt: Extra inputs are not permitted"),
        ('{"default": 0}', "default: Input should be greater than or equal to 1"),
        ('{"default": "three"}', "default: Input should be a valid integer"),
        ('{"canary": {"version": 4}}', "canary.percent: Field required"),
        ('{"canary": {"version": 4, "percent": 101}}', "canary.percent: Input should be less than or equal to 100"),
        ('{"ab": {"percent": {"3": 60, "4": 41}}}', "at most 100 percent in all, received 101"),
        ('{"ab": {"percent": {}}, "canary": {"version": 4, "percent": 1}}', "either 'canary' or 'ab', received both"),
        ('{"versions": "newest"}', "versions: Value error, expected 'latest'"),
        ('{"default": NaN}', "the file: Invalid JSON|default: "),
    ],
)
def test_policy_that_is_none_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy(text)
