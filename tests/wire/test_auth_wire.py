"""Who is let in, on both ports, by a real server: every token and key that must not be is refused."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from server.auth_keys import make_key
from tests.wire.secured_server import GRPC_DOORS, Door, Headers, Secured, by_http, each_door, run_secured
from tests.wire.tokens import Issuer, claims, shared_token

pytestmark = pytest.mark.slow  # each starts from a server process


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from run_secured(tmp_path_factory.mktemp("secured"))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The same with the other of gRPC's hosts."""
    pytest.importorskip("pygrpc_native", reason="gRPC's native host is not installed")
    yield from run_secured(tmp_path_factory.mktemp("native"), "native")


# ---- what is accepted ----


@each_door
@pytest.mark.parametrize("key_id", ["rsa", "ec", "ed"])
def test_tokens_by_each_kind_of_public_key_are_taken(secured: Secured, door: Door, key_id: str) -> None:
    assert door(secured.server, secured.bearer(secured.issuer.sign(key_id))) == 200


@each_door
def test_tokens_by_the_shared_secret_and_api_keys_in_both_forms_are_taken(secured: Secured, door: Door) -> None:
    assert door(secured.server, secured.bearer(shared_token())) == 200
    assert door(secured.server, {"X-API-Key": secured.keys["ci"]}) == 200
    assert door(secured.server, secured.bearer(secured.keys["ci"])) == 200


@pytest.mark.parametrize(
    "told", [{"scope": "email predict"}, {"scope": None, "scp": ["predict"]}, {"scope": None, "scp": "predict x"}]
)
def test_scopes_are_found_in_either_claim(secured: Secured, told: dict[str, Any]) -> None:
    assert by_http(secured.server, secured.bearer(shared_token(**told))) == 200


# ---- what is refused ----


def unsigned(_: Secured) -> Headers:
    return {"Authorization": f"Bearer {jwt.encode(claims(), '', 'none')}"}


def signature_cut_off(secured: Secured) -> Headers:
    return secured.bearer(shared_token().rpartition(".")[0] + ".")


def of_another_secret(secured: Secured) -> Headers:
    return secured.bearer(shared_token("another-secret-of-more-than-32-bytes"))


def of_another_private_key(secured: Secured) -> Headers:
    stranger = Issuer()
    stranger.add("rsa", "RS256")  # the same id, another key
    return secured.bearer(stranger.sign("rsa"))


def of_an_unknown_key(secured: Secured) -> Headers:
    stranger = Issuer()
    stranger.add("never-published", "ES256")
    return secured.bearer(stranger.sign("never-published"))


def for_another_audience(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("rsa", aud="somebody-else"))


def for_no_audience(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("rsa", aud=None))


def of_another_issuer(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("rsa", iss="https://elsewhere.example"))


def expired(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("ec", exp=int(time.time()) - 5))


def without_an_expiry(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("ec", exp=None))


def without_an_id(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("ec", jti=None))


def not_yet_valid(secured: Secured) -> Headers:
    return secured.bearer(secured.issuer.sign("ed", nbf=int(time.time()) + 60))


def the_public_key_as_a_secret(secured: Secured) -> Headers:
    """RS256 → HS256: everybody knows the public key, so a server that takes it for a secret takes anybody's token."""
    _, key = secured.issuer.keys["rsa"]
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, body = ({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, claims())
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
    signature = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), public)
    return secured.bearer(f"{signed}.{_base64(signature)}")


def the_algorithm_of_another_key(secured: Secured) -> Headers:
    """Signed by the elliptic key, under the id of the RSA one."""
    _, key = secured.issuer.keys["ec"]
    return secured.bearer(jwt.encode(claims(), key, "ES256", headers={"kid": "rsa"}))


def a_changed_claim(secured: Secured) -> Headers:
    head, _, signature = shared_token().split(".")
    return secured.bearer(f"{head}.{_base64(json.dumps(claims(sub='mallory')).encode())}.{signature}")


def nothing(_: Secured) -> Headers:
    return {}


def no_token(secured: Secured) -> Headers:
    return secured.bearer("!!!")


def a_password(_: Secured) -> Headers:
    return {"Authorization": "Basic YWxpY2U6c2VjcmV0"}


def an_unknown_key(_: Secured) -> Headers:
    return {"X-API-Key": make_key("ci", ["predict"])[0]}


def a_key_cut_off(secured: Secured) -> Headers:
    return {"X-API-Key": secured.keys["ci"][:-1]}


def a_key_s_hash(secured: Secured) -> Headers:
    return {"X-API-Key": secured.key_file.read_text().splitlines()[1].split(":")[2]}


def a_key_and_a_token(secured: Secured) -> Headers:
    return secured.bearer(shared_token()) | {"X-API-Key": secured.keys["ci"]}


REFUSED = [
    unsigned,
    signature_cut_off,
    of_another_secret,
    of_another_private_key,
    of_an_unknown_key,
    for_another_audience,
    for_no_audience,
    of_another_issuer,
    expired,
    without_an_expiry,
    without_an_id,
    not_yet_valid,
    the_public_key_as_a_secret,
    the_algorithm_of_another_key,
    a_changed_claim,
    nothing,
    no_token,
    a_password,
    an_unknown_key,
    a_key_cut_off,
    a_key_s_hash,
    a_key_and_a_token,
]


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@each_door
@pytest.mark.parametrize("credentials", REFUSED, ids=lambda make: make.__name__)
def test_refused(secured: Secured, door: Door, credentials: Callable[[Secured], Headers]) -> None:
    assert door(secured.server, credentials(secured)) == 401


@pytest.mark.parametrize("door", GRPC_DOORS, ids=lambda door: door.__name__)
def test_the_other_grpc_host_keeps_to_the_same_rules(native: Secured, door: Door) -> None:
    answers = {make.__name__: door(native.server, make(native)) for make in REFUSED}
    assert answers == dict.fromkeys(answers, 401)
    assert door(native.server, native.bearer(shared_token(scope="metrics"))) == 403
    assert door(native.server, native.bearer(native.issuer.sign("rsa"))) == 200
    assert door(native.server, {"X-API-Key": native.keys["ci"]}) == 200


@each_door
def test_the_scope_must_be_the_one_it_takes(secured: Secured, door: Door) -> None:
    assert door(secured.server, secured.bearer(shared_token(scope="metrics admin"))) == 403
    assert door(secured.server, secured.bearer(shared_token(scope=None))) == 403
    assert door(secured.server, {"X-API-Key": secured.keys["prometheus"]}) == 403
