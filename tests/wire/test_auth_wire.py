"""Who is let in, on both ports, by a real server: every token and key that must not be is refused."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from protos import inference_pb2 as v2
from protos import inference_pb2_grpc as v2_grpc
from protos import tensorflow_serving_pb2 as tf
from protos import tensorflow_serving_pb2_grpc as tf_grpc
from server.auth_keys import make_key
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server
from tests.wire.tokens import AUDIENCE, ISSUER, SECRET, Issuer, claims, serve_issuer, shared_token

pytestmark = pytest.mark.slow  # each starts from a server process

WITHIN_S = 20
PICTURE = picture(200)
CLASSIFY = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[PICTURE]))
INFER = v2.ModelInferRequest(
    model_name="grey",
    inputs=[v2.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 8, 8, 1])],
    raw_input_contents=[bytes(64)],
)
CODES = {grpc.StatusCode.OK: 200, grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403}

Headers = dict[str, str]


@dataclass
class Secured:
    """A server that asks who is there."""

    server: ServerProcess
    issuer: Issuer
    keys: dict[str, str]  # by name
    key_file: Path

    def bearer(self, token: str) -> Headers:
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from run(tmp_path_factory.mktemp("secured"), "grpcio")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The same with the other of gRPC's hosts."""
    pytest.importorskip("pygrpc_native", reason="gRPC's native host is not installed")
    yield from run(tmp_path_factory.mktemp("native"), "native")


def run(folder: Path, grpc_host: str) -> Iterator[Secured]:
    write_bundle(folder / "models", "grey", 1)
    made = {name: make_key(name, scopes) for name, scopes in KEYS.items()}
    (folder / "keys").write_text("# of the tests\n" + "".join(f"{line}\n" for _, line in made.values()))
    (folder / "secret").write_text(f"{SECRET}\n")
    with serve_issuer() as issuer:
        flags = {
            "--jwt-key-file": folder / "secret",
            "--jwks": issuer.url,
            "--jwks-refresh-s": 0.2,
            "--jwt-issuer": ISSUER,
            "--jwt-audience": AUDIENCE,
            "--jwt-leeway-s": 0,
            "--api-keys": folder / "keys",
            "--model-control": "explicit",
            "--preload": "grey",
            "--grpc-host": grpc_host,
            "--latency-budget-ms": 5000,
        }
        given = [text for flag, value in flags.items() for text in (flag, str(value))]
        with run_server(folder / "models", folder / "server", *given) as server:
            yield Secured(server, issuer, {name: key for name, (key, _) in made.items()}, folder / "keys")


KEYS = {"ci": ["predict"], "boss": ["predict", "admin"], "prometheus": ["metrics"]}


# ---- one way to ask for each door: they answer 200, 401 or 403 ----


def by_http(server: ServerProcess, headers: Headers) -> int:
    with Http(server.http_port) as http:
        return http.ask("POST", "/predict", PICTURE, headers).status


def by_v2_http(server: ServerProcess, headers: Headers) -> int:
    with Http(server.http_port) as http:
        return http.ask(
            "POST", "/v2/models/grey/infer", PICTURE, headers | {"Inference-Header-Content-Length": "0"}
        ).status


def by_v1_http(server: ServerProcess, headers: Headers) -> int:
    body = json.dumps({"instances": [{"b64": base64.b64encode(PICTURE).decode()}]}).encode()
    with Http(server.http_port) as http:
        return http.ask("POST", "/v1/models/grey:predict", body, headers).status


def code_of(call: Callable[[grpc.Channel, Any], object], server: ServerProcess, headers: Headers) -> int:
    metadata = [(name.lower(), value) for name, value in headers.items()]
    with server.channel() as channel:
        try:
            call(channel, metadata)
        except grpc.RpcError as error:
            return CODES[error.code()]
    return 200


def by_grpc(server: ServerProcess, headers: Headers) -> int:
    def call(channel: grpc.Channel, metadata: Any) -> object:
        return pb_grpc.ClassifierStub(channel).Classify(CLASSIFY, metadata=metadata, timeout=9)

    return code_of(call, server, headers)


def by_grpc_stream(server: ServerProcess, headers: Headers) -> int:
    def call(channel: grpc.Channel, metadata: Any) -> object:
        return list(pb_grpc.ClassifierStub(channel).ClassifyStream(iter([CLASSIFY]), metadata=metadata, timeout=9))

    return code_of(call, server, headers)


def by_v2_grpc(server: ServerProcess, headers: Headers) -> int:
    def call(channel: grpc.Channel, metadata: Any) -> object:
        return v2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(INFER, metadata=metadata, timeout=9)

    return code_of(call, server, headers)


def by_v2_grpc_stream(server: ServerProcess, headers: Headers) -> int:
    def call(channel: grpc.Channel, metadata: Any) -> object:
        stub = v2_grpc.GRPCInferenceServiceStub(channel)
        return list(stub.ModelStreamInfer(iter([INFER]), metadata=metadata, timeout=9))

    return code_of(call, server, headers)


def by_tf_grpc(server: ServerProcess, headers: Headers) -> int:
    request = tf.GetModelMetadataRequest(model_spec=tf.ModelSpec(name="grey"), metadata_field=["signature_def"])

    def call(channel: grpc.Channel, metadata: Any) -> object:
        return tf_grpc.PredictionServiceStub(channel).GetModelMetadata(request, metadata=metadata, timeout=9)

    return code_of(call, server, headers)


DOORS = [by_http, by_v2_http, by_v1_http, by_grpc, by_grpc_stream, by_v2_grpc, by_v2_grpc_stream, by_tf_grpc]
Door = Callable[[ServerProcess, Headers], int]
GRPC_DOORS = [by_grpc, by_grpc_stream, by_v2_grpc, by_v2_grpc_stream, by_tf_grpc]
each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


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


# ---- keys that change ----


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.05)  # another process is what we wait for


@pytest.mark.parametrize("door", [by_http, by_v2_grpc_stream], ids=lambda door: door.__name__)
def test_a_token_is_refused_once_its_key_has_been_rotated_out(secured: Secured, door: Door) -> None:
    server, issuer = secured.server, secured.issuer
    key_id = f"rotated-{door.__name__}"
    issuer.add(key_id, "ES256")
    replayed = secured.bearer(issuer.sign(key_id))
    wait_until(lambda: door(server, replayed) == 200, "the new key is known")
    del issuer.keys[key_id]
    wait_until(lambda: door(server, replayed) == 401, "the old key is forgotten, and who showed it too")
    assert door(server, secured.bearer(issuer.sign("rsa"))) == 200


def test_an_api_key_is_added_and_taken_back_while_the_server_runs(secured: Secured) -> None:
    key, line = make_key("visitor", ["predict"])
    before = secured.key_file.read_text()
    assert by_http(secured.server, {"X-API-Key": key}) == 401
    secured.key_file.write_text(before + line + "\n")
    wait_until(lambda: by_http(secured.server, {"X-API-Key": key}) == 200, "the key is known")
    assert by_grpc(secured.server, {"X-API-Key": key}) == 200
    secured.key_file.write_text(before)
    wait_until(lambda: by_http(secured.server, {"X-API-Key": key}) == 401, "the key is forgotten")
    assert by_grpc(secured.server, {"X-API-Key": key}) == 401


def test_a_broken_file_of_keys_leaves_those_in_force(secured: Secured) -> None:
    before = secured.key_file.read_text()
    secured.key_file.write_text(before + "not a key\n")
    wait_until(lambda: "what was in force stays" in secured.server.log, "the fault is logged")
    assert by_http(secured.server, {"X-API-Key": secured.keys["ci"]}) == 200
    secured.key_file.write_text(before)


def test_a_stream_ends_when_its_key_is_taken_back_and_what_came_before_is_answered(secured: Secured) -> None:
    key, line = make_key("streamer", ["predict"])
    before = secured.key_file.read_text()
    secured.key_file.write_text(before + line + "\n")
    wait_until(lambda: by_http(secured.server, {"X-API-Key": key}) == 200, "the key is known")
    answers: list[pb.ClassifyResponse] = []

    def messages() -> Iterator[pb.ClassifyRequest]:
        yield CLASSIFY
        wait_until(lambda: len(answers) == 1, "the first is answered")
        secured.key_file.write_text(before)
        wait_until(lambda: by_http(secured.server, {"X-API-Key": key}) == 401, "the key is forgotten")
        yield CLASSIFY

    with secured.server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        stream = stub.ClassifyStream(messages(), metadata=(("x-api-key", key),), timeout=WITHIN_S)
        with pytest.raises(grpc.RpcError) as ended:
            answers.extend(stream)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(answers) == 1


# ---- what takes which scope ----


def test_loading_and_unloading_take_the_scope_admin(secured: Secured) -> None:
    path = "/v2/repository/models/grey/load"
    with Http(secured.server.http_port) as http:
        assert http.ask("POST", path, b"", {"X-API-Key": secured.keys["ci"]}).status == 403
        assert http.ask("POST", path, b"", {}).status == 401
        assert http.ask("POST", path, b"", {"X-API-Key": secured.keys["boss"]}).status == 200
    request = v2.RepositoryModelLoadRequest(model_name="grey")

    def load(channel: grpc.Channel, metadata: Any) -> object:
        return v2_grpc.GRPCInferenceServiceStub(channel).RepositoryModelLoad(request, metadata=metadata, timeout=9)

    assert code_of(load, secured.server, {"X-API-Key": secured.keys["ci"]}) == 403
    assert code_of(load, secured.server, {}) == 401
    assert code_of(load, secured.server, {"X-API-Key": secured.keys["boss"]}) == 200
    assert '"admin request"' in secured.server.log
    assert '"caller": "key:boss"' in secured.server.log


@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/logging", "/v2/models/grey/trace/setting"])
def test_settings_take_the_scope_admin(secured: Secured, path: str) -> None:
    with Http(secured.server.http_port) as http:
        assert http.get(path, **{"X-API-Key": secured.keys["ci"]}).status == 403
        assert http.get(path, **{"X-API-Key": secured.keys["boss"]}).status == 200


def test_metrics_take_their_own_scope(secured: Secured) -> None:
    with Http(secured.server.http_port) as http:
        assert http.get("/metrics").status == 401
        assert http.get("/metrics", **{"X-API-Key": secured.keys["boss"]}).status == 403
        answer = http.get("/metrics", **secured.bearer(secured.keys["prometheus"]))
    assert answer.status == 200
    assert b'outcome="Unauthenticated"' in answer.body


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/routes", "/static/app.js", "/health", "/health/live", "/v2/health/ready"],
)
def test_what_tells_nothing_is_open(secured: Secured, path: str) -> None:
    with Http(secured.server.http_port) as http:
        assert http.get(path).status == 200


@pytest.mark.parametrize("path", ["/model-info", "/example", "/v2", "/v2/models/grey", "/v1/models"])
def test_what_tells_of_models_is_not(secured: Secured, path: str) -> None:
    with Http(secured.server.http_port) as http:
        assert http.get(path).status == 401
        assert http.ask("HEAD", path, None, {}).status == 401


def test_what_is_not_there_is_not_there_for_strangers_too(secured: Secured) -> None:
    with Http(secured.server.http_port) as http:
        assert http.get("/nothing").status == 404
        assert http.ask("DELETE", "/predict", None, {}).status == 405


def test_health_and_reflection_are_open_by_grpc(secured: Secured) -> None:
    with secured.server.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=9)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert v2_grpc.GRPCInferenceServiceStub(channel).ServerReady(v2.ServerReadyRequest(), timeout=9).ready
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        told = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=9))
    assert "shoal.v1.Classifier" in {service.name for service in told.list_services_response.service}


# ---- how it is told ----


def test_a_refusal_has_the_form_of_its_protocol(secured: Secured) -> None:
    with Http(secured.server.http_port) as http:
        plain = http.predict(PICTURE, X_API_Key="wrong")
        open_inference = http.ask("POST", "/v2/models/grey/infer", b"{}", {})
        tensorflow = http.ask("POST", "/v1/models/grey:predict", b"{}", {})
    assert plain.headers["Content-Type"] == "application/problem+json"
    assert (plain.json["status"], plain.json["type"]) == (401, "urn:shoal:unauthenticated")
    assert plain.headers["WWW-Authenticate"] == 'Bearer realm="shoal", error="invalid_token"'
    for answer in (open_inference, tensorflow):
        assert list(answer.json) == ["error"]
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="shoal"'


def test_a_missing_scope_is_named(secured: Secured) -> None:
    with Http(secured.server.http_port) as http:
        answer = http.predict(PICTURE, X_API_Key=secured.keys["prometheus"])
    assert answer.json["detail"] == "expected the scope 'predict', received metrics"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="shoal", error="insufficient_scope"'


def test_no_secret_is_in_the_log(secured: Secured) -> None:
    token = shared_token(aud="somebody-else")
    assert by_http(secured.server, secured.bearer(token)) == 401
    assert by_grpc(secured.server, secured.bearer(token)) == 401
    for secret in (token, SECRET, *secured.keys.values()):
        assert secret not in secured.server.log
    assert '"refused"' in secured.server.log
