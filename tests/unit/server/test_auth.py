import asyncio
from collections.abc import Callable, Coroutine

import pytest

from server.auth import MAX_REMEMBERED, REMEMBER_S, Authenticator, Caller, Credentials, require
from server.errors import PermissionDenied, Unauthenticated

ALICE = Caller("token:alice", frozenset({"predict"}))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Tokens:
    """Knows one token, and counts how often it is asked."""

    def __init__(self, caller: Caller = ALICE) -> None:
        self.caller = caller
        self.asked = 0

    async def check(self, token: str) -> Caller:
        self.asked += 1
        if token != "right":
            raise Unauthenticated("expected another token")
        return self.caller


class Keys:
    def check(self, key: str) -> Caller | None:
        return Caller("key:ci", frozenset({"predict"})) if key == "shoal_right" else None


def run(work: Coroutine[None, None, Caller]) -> Caller:
    return asyncio.run(work)


def bearer(token: str) -> Credentials:
    return Credentials(f"Bearer {token}")


def test_a_caller_is_checked_once_and_then_remembered() -> None:
    tokens, clock = Tokens(), Clock()
    authenticator = Authenticator(None, tokens, clock)
    assert authenticator.known(bearer("right")) is None
    assert run(authenticator.identify(bearer("right"))) is ALICE
    assert run(authenticator.identify(bearer("right"))) is ALICE
    assert authenticator.known(bearer("right")) is ALICE
    assert tokens.asked == 1


def test_after_a_minute_it_is_checked_again() -> None:
    tokens, clock = Tokens(), Clock()
    authenticator = Authenticator(None, tokens, clock)
    run(authenticator.identify(bearer("right")))
    clock.now_s += REMEMBER_S
    assert authenticator.known(bearer("right")) is None
    run(authenticator.identify(bearer("right")))
    assert tokens.asked == 2


def test_nobody_is_remembered_for_longer_than_their_token_is_valid() -> None:
    clock = Clock()
    tokens = Tokens(Caller("token:alice", frozenset(), expires_s=clock.now_s + 5))
    authenticator = Authenticator(None, tokens, clock)
    run(authenticator.identify(bearer("right")))
    clock.now_s += 5
    assert authenticator.known(bearer("right")) is None


def test_everybody_is_forgotten_when_keys_change() -> None:
    authenticator = Authenticator(None, Tokens(), Clock())
    run(authenticator.identify(bearer("right")))
    authenticator.forget()
    assert authenticator.known(bearer("right")) is None


def test_who_is_refused_is_not_remembered() -> None:
    tokens = Tokens()
    authenticator = Authenticator(None, tokens, Clock())
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            run(authenticator.identify(bearer("wrong")))
    assert tokens.asked == 2


def test_what_is_remembered_is_bounded() -> None:
    class Everybody(Tokens):
        async def check(self, token: str) -> Caller:
            return Caller(token, frozenset())

    async def all_of_them() -> None:
        for number in range(MAX_REMEMBERED + 10):
            await authenticator.identify(bearer(f"t{number}"))

    authenticator = Authenticator(None, Everybody(), Clock())
    asyncio.run(all_of_them())
    assert authenticator.known(bearer("t9")) is None
    assert authenticator.known(bearer("t10")) is not None


@pytest.mark.parametrize(
    ("credentials", "name"),
    [
        (Credentials("Bearer right"), "token:alice"),
        (Credentials("bearer  right "), "token:alice"),
        (Credentials(None, "shoal_right"), "key:ci"),
        (Credentials("Bearer shoal_right"), "key:ci"),
    ],
)
def test_each_form_is_understood(credentials: Credentials, name: str) -> None:
    assert run(Authenticator(Keys(), Tokens(), Clock()).identify(credentials)).name == name


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        (Credentials(), "received neither"),
        (Credentials("Bearer right", "shoal_right"), "received both"),
        (Credentials("Bearer"), "another form"),
        (Credentials("Bearer "), "another form"),
        (Credentials("Basic right"), "another form"),
        (Credentials("right"), "another form"),
        (Credentials(None, "shoal_wrong"), "received another"),
        (Credentials(None, ""), "received another"),
        (Credentials(None, "right"), "received another"),  # a token is no key
    ],
)
def test_everything_else_is_refused(credentials: Credentials, message: str) -> None:
    with pytest.raises(Unauthenticated, match=message):
        run(Authenticator(Keys(), Tokens(), Clock()).identify(credentials))


@pytest.mark.parametrize(
    ("make", "credentials"),
    [
        (lambda: Authenticator(Keys(), None), Credentials("Bearer right")),
        (lambda: Authenticator(None, Tokens()), Credentials("Bearer shoal_right")),
        (lambda: Authenticator(None, Tokens()), Credentials(None, "shoal_right")),
    ],
)
def test_what_is_not_set_up_lets_nobody_in(make: Callable[[], Authenticator], credentials: Credentials) -> None:
    with pytest.raises(Unauthenticated):
        run(make().identify(credentials))


def test_only_nothing_at_all_is_missing() -> None:
    for credentials, missing in ((Credentials(), True), (Credentials("Bearer wrong"), False)):
        with pytest.raises(Unauthenticated) as refused:
            run(Authenticator(Keys(), Tokens()).identify(credentials))
        assert refused.value.missing is missing


def test_a_scope_is_had_or_not() -> None:
    require(ALICE, "predict")
    with pytest.raises(PermissionDenied, match="expected the scope 'admin', received predict"):
        require(ALICE, "admin")
    with pytest.raises(PermissionDenied, match="received none"):
        require(Caller("x", frozenset()), "metrics")
