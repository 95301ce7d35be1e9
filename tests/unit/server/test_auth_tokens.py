import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from server.auth import Caller
from server.auth_jwks import FileKeys, RemoteKeys, read_key_set
from server.auth_tokens import Secrets, SigningKey, Tokens, read_secrets
from server.errors import StartupError, Unauthenticated, Unavailable
from tests.wire.tokens import AUDIENCE, ISSUER, SECRET, Issuer, claims, make_private, public_jwk, shared_token


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    for key_id, algorithm in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")):
        issuer.add(key_id, algorithm)
    return issuer


class Fixed:
    """A key set that stays as it is."""

    fetched = True

    def __init__(self, keys: tuple[SigningKey, ...]) -> None:
        self.keys = keys
        self.refetched = 0

    async def refetch(self) -> None:
        self.refetched += 1


def check(tokens: Tokens, token: str) -> Caller:
    return asyncio.run(tokens.check(token))


def of(public: Fixed, **options: Any) -> Tokens:
    given: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "leeway_s": 0.0} | options
    return Tokens(None, public, **given)


def with_secrets(tmp_path: Path, content: str = SECRET, **options: Any) -> Tokens:
    (tmp_path / "secret").write_text(content)
    given: dict[str, Any] = {"issuer": "", "audience": "", "leeway_s": 0.0} | options
    return Tokens(Secrets(tmp_path / "secret"), None, **given)


def test_a_token_tells_who_and_what_and_until_when(tmp_path: Path) -> None:
    until = int(time.time()) + 100
    token = shared_token(sub="bob", scope="admin openid predict", exp=until)
    assert check(with_secrets(tmp_path), token) == Caller("token:bob", frozenset({"admin", "predict"}), until)


def test_the_leeway_is_added_to_the_end_and_taken_from_the_beginning(tmp_path: Path) -> None:
    now_s = int(time.time())
    tokens = with_secrets(tmp_path, leeway_s=30.0)
    assert check(tokens, shared_token(exp=now_s - 10)).expires_s == now_s + 20
    check(tokens, shared_token(nbf=now_s + 10))
    with pytest.raises(Unauthenticated, match="has expired"):
        check(tokens, shared_token(exp=now_s - 40))
    with pytest.raises(Unauthenticated, match="whose time has not come"):
        check(tokens, shared_token(nbf=now_s + 60))


def test_one_secret_can_take_over_from_another(tmp_path: Path) -> None:
    other = "another secret, for the days of the change"
    tokens = with_secrets(tmp_path, f"{SECRET}\n{other}\n")
    check(tokens, shared_token(SECRET))
    check(tokens, shared_token(other))


def test_without_settings_any_issuer_and_audience_will_do(tmp_path: Path) -> None:
    tokens = with_secrets(tmp_path)
    for told in ({"iss": "x"}, {"aud": ["x", "y"]}, {"aud": None, "iss": None}):
        check(tokens, shared_token(**told))


def test_one_of_several_audiences_is_enough(issuer: Issuer) -> None:
    tokens = of(Fixed(read_key_set(issuer.document)))
    check(tokens, issuer.sign("ec", aud=["other", AUDIENCE]))
    with pytest.raises(Unauthenticated, match="for another audience"):
        check(tokens, issuer.sign("ec", aud=["other"]))


@pytest.mark.parametrize("claim", ["iss", "aud", "exp"])
def test_what_is_checked_has_to_be_there(issuer: Issuer, claim: str) -> None:
    with pytest.raises(Unauthenticated, match=f"expected a token with {claim}, received one without"):
        check(of(Fixed(read_key_set(issuer.document))), issuer.sign("ec", **{claim: None}))


def test_a_name_that_is_unfit_for_a_log_is_made_fit(tmp_path: Path) -> None:
    caller = check(with_secrets(tmp_path), shared_token(sub="a\nb\x1b[31m" + "x" * 1000))
    assert caller.name.startswith("token:a?b?[31mxxx")
    assert len(caller.name) == len("token:") + 128


@pytest.mark.parametrize("scope", [{"scope": 7}, {"scope": {"predict": True}}, {"scp": [1, None]}, {"scp": None}])
def test_scopes_in_another_form_are_none(tmp_path: Path, scope: dict[str, Any]) -> None:
    assert check(with_secrets(tmp_path), shared_token(**({"scope": None} | scope))).scopes == frozenset()


def test_a_token_without_a_key_s_id_may_be_by_any_of_them(issuer: Issuer) -> None:
    tokens = of(Fixed(read_key_set(issuer.document)))
    _, key = issuer.keys["ed"]
    check(tokens, jwt.encode(claims(), key, "EdDSA"))
    with pytest.raises(Unauthenticated, match="with a wrong one"):
        check(tokens, jwt.encode(claims(), make_private("EdDSA"), "EdDSA"))


def test_a_secret_never_checks_what_a_public_key_should_and_the_other_way_round(tmp_path: Path, issuer: Issuer) -> None:
    (tmp_path / "secret").write_text(SECRET)
    both = Tokens(
        Secrets(tmp_path / "secret"),
        Fixed(read_key_set(issuer.document)),
        issuer="",
        audience="",
        leeway_s=0,
    )
    check(both, shared_token())
    check(both, issuer.sign("rsa"))
    for algorithm in ("HS384", "HS512", "none"):
        key = "" if algorithm == "none" else SECRET * 2
        with pytest.raises(Unauthenticated, match="signed with a key that is known here"):
            check(both, jwt.encode(claims(), key, algorithm))


def spell(header: str) -> str:
    return base64.urlsafe_b64encode(header.encode()).decode().rstrip("=") + ".e30.AA"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "\udcff",
        "a.b.c",
        "ключ",
        spell("[" * 5000),
        spell("7"),
        spell("{}"),
        spell('{"alg": null}'),
        spell('{"alg": ["HS256"]}'),
        spell('{"alg": "HS256", "kid": 7}'),
        spell('{"alg": "HS256", "crit": ["exp"]}'),
        spell('{"alg": "HS256", "b64": false, "crit": ["b64"]}'),
    ],
)
def test_whatever_is_sent_is_refused_in_the_same_way(tmp_path: Path, token: str) -> None:
    with pytest.raises(Unauthenticated):
        check(with_secrets(tmp_path), token)


@pytest.mark.slow
@given(st.text(), st.text(), st.binary())
def test_any_token_at_all_is_refused(head: str, body: str, signature: bytes) -> None:
    secrets = Fixed((SigningKey(None, "HS256", SECRET.encode()),))
    for token in (f"{head}.{body}.{signature!r}", head, f"{spell(head)}.{body}"):
        with pytest.raises(Unauthenticated):
            check(of(secrets), token)


def test_only_an_unknown_public_key_has_the_set_fetched_again(issuer: Issuer) -> None:
    public = Fixed(read_key_set(issuer.document))
    tokens = of(public)
    check(tokens, issuer.sign("rsa"))
    for token in ("no token", shared_token(), jwt.encode(claims(), "", "none")):
        with pytest.raises(Unauthenticated):
            check(tokens, token)
    stranger = Issuer()
    stranger.add("new", "ES256")
    before = public.refetched
    with pytest.raises(Unauthenticated):
        check(tokens, stranger.sign("new"))
    assert public.refetched == before + 1


# ---- the files ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "received none"),
        ("\n\n", "received none"),
        ("short", "received a shorter one as number 1"),
        (f"{SECRET}\nshort", "received a shorter one as number 2"),
        ("-----BEGIN PUBLIC KEY-----\nMIIB\n", "received a PEM file"),
    ],
)
def test_secrets_that_are_none_are_not_taken_and_never_quoted(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(StartupError, match=message) as error:
        read_secrets(tmp_path / "secret")
    assert SECRET not in str(error.value)
    assert "MIIB" not in str(error.value)


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [7]}', b'{"keys": [{"kty": "oct"}]}', b"\xff"],
)
def test_a_set_without_a_usable_key_is_none(document: bytes) -> None:
    with pytest.raises(StartupError, match="--jwks: expected"):
        read_key_set(document)


def test_keys_that_are_for_something_else_are_passed_over(issuer: Issuer) -> None:
    _, key = issuer.keys["rsa"]
    good = public_jwk(key, "RS256", "good")
    others = [
        good | {"kid": "encrypts", "use": "enc"},
        good | {"kid": "other", "alg": "RSA-OAEP"},
        {"kty": "EC", "crv": "P-521", "kid": "curve", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "broken", "n": "!!!", "e": "AQAB"},
        {"kty": "new", "kid": "unheard-of"},
        "no object",
    ]
    assert [key.id for key in read_key_set(json.dumps({"keys": [*others, good]}).encode())] == ["good"]


def test_a_short_rsa_key_is_passed_over() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(StartupError, match="received none that can be used"):
        read_key_set(json.dumps({"keys": [public_jwk(short, "RS256", "short")]}).encode())


def test_a_set_with_a_private_key_is_refused(issuer: Issuer) -> None:
    _, key = issuer.keys["ed"]
    private = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(key))
    with pytest.raises(StartupError, match="public keys alone"):
        read_key_set(json.dumps({"keys": [private]}).encode())


def test_a_set_in_a_file_follows_the_file(tmp_path: Path, issuer: Issuer) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.document)
    keys = FileKeys(path)
    assert {key.id for key in keys.keys} == {"rsa", "ec", "ed"}
    path.write_text(json.dumps({"keys": [public_jwk(issuer.keys["ec"][1], "ES256", "next")]}))
    assert asyncio.run(keys.refresh())
    assert [key.id for key in keys.keys] == ["next"]
    assert not asyncio.run(keys.refresh())


# ---- a set by URL, on a clock of the test's ----


class Source:
    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.asked = 0
        self.away = False
        self.now_s = 0.0

    async def fetch(self, url: str) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        return self.issuer.document

    def keys(self) -> RemoteKeys:
        return RemoteKeys("https://issuer.example", 300, self.fetch, lambda: self.now_s)


@pytest.fixture
def source() -> Source:
    issuer = Issuer()
    issuer.add("first", "ES256")
    return Source(issuer)


def test_strangers_cannot_have_it_fetched_again_and_again(source: Source) -> None:
    async def scenario() -> None:
        keys = source.keys()
        await asyncio.gather(*(keys.refetch() for _ in range(20)))
        assert source.asked == 1
        source.now_s += 9.9
        await keys.refetch()
        assert source.asked == 1
        source.now_s += 0.2
        await asyncio.gather(*(keys.refetch() for _ in range(20)))
        assert source.asked == 2

    asyncio.run(scenario())


def test_a_new_key_is_found_by_the_first_token_that_has_it(source: Source) -> None:
    async def scenario() -> None:
        keys = source.keys()
        tokens = Tokens(None, keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)
        await keys.refresh()
        source.issuer.add("second", "ES256")
        source.now_s += 11
        assert (await tokens.check(source.issuer.sign("second"))).name == "token:alice"

    asyncio.run(scenario())


def test_it_is_fetched_when_it_has_grown_old_and_tells_whether_that_changed_anything(source: Source) -> None:
    async def scenario() -> None:
        keys = source.keys()
        assert await keys.refresh()
        assert not await keys.refresh()
        source.now_s += 301
        assert not await keys.refresh()
        assert source.asked == 2
        source.issuer.keys["first"] = "ES256", make_private("ES256")  # the same id, another key
        source.now_s += 301
        assert await keys.refresh()

    asyncio.run(scenario())


def test_what_a_token_had_fetched_counts_as_a_change_too(source: Source) -> None:
    async def scenario() -> None:
        keys = source.keys()
        await keys.refresh()
        source.issuer.add("second", "ES256")
        source.now_s += 11
        await keys.refetch()
        assert await keys.refresh()

    asyncio.run(scenario())


def test_while_the_issuer_is_away_its_last_keys_are_good(source: Source) -> None:
    async def scenario() -> None:
        keys = source.keys()
        await keys.refresh()
        source.away = True
        source.now_s += 301
        assert not await keys.refresh()
        assert [key.id for key in keys.keys] == ["first"]

    asyncio.run(scenario())


def test_an_issuer_that_was_never_reached_is_the_server_s_trouble_not_the_caller_s(source: Source) -> None:
    async def scenario() -> None:
        source.away = True
        keys = source.keys()
        tokens = Tokens(None, keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)
        token = source.issuer.sign("first")
        with pytest.raises(Unavailable, match="could not be fetched yet"):
            await tokens.check(token)
        source.away = False
        source.now_s += 11
        assert await keys.refresh()
        await tokens.check(token)

    asyncio.run(scenario())
