"""What a real server lets whom do, how it says no, and keys that change while it runs."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from protos import inference_pb2 as v2
from protos import inference_pb2_grpc as v2_grpc
from server.auth_keys import make_key
from tests.wire.http_client import Http
from tests.wire.secured_server import (
    CLASSIFY,
    PICTURE,
    Door,
    Secured,
    by_grpc,
    by_http,
    by_v2_grpc_stream,
    code_of,
    run_secured,
)
from tests.wire.tokens import SECRET, shared_token

pytestmark = pytest.mark.slow  # each starts from a server process

WITHIN_S = 20


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from run_secured(tmp_path_factory.mktemp("secured"))


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


@pytest.mark.parametrize("door", [by_http, by_grpc, by_v2_grpc_stream], ids=lambda door: door.__name__)
def test_a_single_token_is_taken_back_while_the_server_runs(secured: Secured, door: Door) -> None:
    stolen = secured.bearer(secured.issuer.sign("rsa", jti=f"stolen-{door.__name__}"))
    assert door(secured.server, stolen) == 200
    with secured.revoked_file.open("a") as file:
        file.write(f"stolen-{door.__name__}\n")
    wait_until(lambda: door(secured.server, stolen) == 401, "the token is refused, and who showed it forgotten")
    assert door(secured.server, secured.bearer(secured.issuer.sign("rsa"))) == 200


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


def test_feedback_takes_its_own_scope(secured: Secured) -> None:
    said = b'{"request_id": "never-asked", "label": "bright"}'
    with Http(secured.server.http_port) as http:
        assert http.ask("POST", "/feedback", said, {"X-API-Key": secured.keys["boss"]}).status == 403
        # It may, but nothing is logged here.
        assert http.ask("POST", "/feedback", said, {"X-API-Key": secured.keys["judge"]}).status == 404
        assert http.predict(PICTURE, X_API_Key=secured.keys["judge"]).status == 403


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
