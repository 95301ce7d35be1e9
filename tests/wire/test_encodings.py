"""Compressed bodies on every route that takes one, and what comes with every answer."""

import base64
import gzip
import json
import socket
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from backports import zstd

from tests.wire.bundles import picture
from tests.wire.http_client import Answer, Http
from tests.wire.server_process import ServerProcess

pytestmark = pytest.mark.slow  # each starts from a server process

LIMIT = 200_000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
FLAT = [250] * 64
PICTURE = {"images": [base64.b64encode(picture(250)).decode()]}
V2_BODY = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": FLAT}]}
# A body that each route answers with 200, or says what the server would have to be started with.
BODIES: dict[str, tuple[int, Any]] = {
    "/predict": (200, {"data": FLAT}),
    "/predict/{model}": (200, {"data": FLAT}),
    "/explain": (200, PICTURE),
    "/feedback": (404, {"request_id": "a", "label": "dark"}),  # this server logs no predictions
    "/explain/{model}": (200, PICTURE),
    "/v2/models/{model}/infer": (200, V2_BODY),
    "/v2/models/{model}/versions/{version}/infer": (200, V2_BODY),
    "/v2/repository/index": (200, {"ready": True}),
    "/v2/repository/models/{model}/load": (503, {"parameters": {}}),
    "/v2/repository/models/{model}/unload": (503, {"parameters": {}}),
    "/v2/trace/setting": (200, {"trace_rate": "1000"}),
    "/v2/models/{model}/trace/setting": (200, {"trace_rate": "1000"}),
    "/v2/logging": (200, {"log_info": True}),
    **{
        f"/v1/models/{{model}}{place}:{method}": (200, body)
        for place in ("", "/versions/{version}", "/labels/{label}")
        for method, body in (
            ("predict", {"instances": [[[[250]] * 8] * 8]}),
            ("classify", {"examples": [{"image": FLAT}]}),
        )
    },
}


def filled(path: str) -> str:
    return path.format(model="grey", version=1, label="latest", name="app.js", region="x")


def post(http: Http, path: str, body: bytes, coding: str) -> Answer:
    return http.ask("POST", filled(path), body, {"Content-Encoding": coding, "Content-Type": "application/json"})


def compressed(body: bytes, coding: str) -> bytes:
    for name in coding.replace(" ", "").split(","):
        body = COMPRESS[name](body)
    return body


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> Any:
    with Http(server.http_port) as http:
        return http.get("/openapi.json").json


def test_every_route_that_takes_a_body_is_asked(document: Any) -> None:
    with_body = {path for path, item in document["paths"].items() if "requestBody" in item.get("post", {})}
    assert with_body == BODIES.keys()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "gzip, gzip", "deflate,zstd"])
@pytest.mark.parametrize("path", BODIES)
def test_a_compressed_body_is_answered_as_the_plain_one(http: Http, path: str, coding: str) -> None:
    status, body = BODIES[path]
    answer = post(http, path, compressed(json.dumps(body).encode(), coding), coding)
    assert answer.status == status, answer.body


@pytest.mark.parametrize("path", BODIES)
def test_an_unknown_coding_is_refused_with_the_known_ones(http: Http, path: str) -> None:
    answer = post(http, path, b"whatever", "br")
    assert answer.status == 415, answer.body
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd"
    assert b"'br'" in answer.body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "gzip, gzip", "zstd, gzip"])
@pytest.mark.parametrize("path", ["/predict", "/v2/models/{model}/infer", "/v1/models/{model}:predict"])
def test_a_bomb_is_refused(http: Http, path: str, coding: str) -> None:
    bomb = compressed(bytes(50_000_000), coding)
    assert len(bomb) < LIMIT
    answer = post(http, path, bomb, coding)
    assert answer.status == 413, answer.body
    assert b"200,000 bytes" in answer.body


@pytest.mark.parametrize("coding", COMPRESS)
def test_a_body_that_lies_about_its_coding(http: Http, coding: str) -> None:
    for body in (b"not compressed", compressed(picture(250), coding)[:-9]):
        answer = http.predict(body, "image/png", Content_Encoding=coding)
        assert answer.status == 400
        assert coding in answer.json["detail"]
    assert http.predict(picture(250)).status == 200


def test_a_compressed_picture_and_one_in_chunks(http: Http) -> None:
    body = zstd.compress(picture(250))
    assert http.predict(body, "image/png", Content_Encoding="zstd").json["labels"] == ["bright"]
    chunks = http.predict(iter([body[:20], body[20:]]), "image/png", Content_Encoding="zstd")
    assert chunks.json["labels"] == ["bright"]


# ---- what every answer has ----


def assert_named_and_timed(answer: Answer) -> None:
    assert answer.headers["X-Request-Id"]
    assert "total;dur=" in answer.headers["Server-Timing"]


def test_every_operation_names_and_times_its_answer_right_or_wrong(http: Http, document: Any) -> None:
    for path, item in document["paths"].items():
        for method in item:
            right = http.ask(method.upper(), filled(path), json.dumps(BODIES.get(path, (0, None))[1]).encode(), {})
            wrong = http.ask(method.upper(), filled(path), b"{", {"Content-Encoding": "br"})
            for answer in (right, wrong):
                assert_named_and_timed(answer)
            if path.endswith(("infer", "predict", "predict/{model}", "classify")):
                stages = [stage.partition(";")[0] for stage in right.headers["Server-Timing"].split(", ")]
                assert stages == ["decode", "queue", "infer", "total"], path


def test_every_path_tells_its_methods(http: Http, document: Any) -> None:
    for path, item in document["paths"].items():
        methods = {method.upper() for method in item}
        options = http.ask("OPTIONS", filled(path), None, {})
        assert options.status == 204
        allowed = set(options.headers["Allow"].split(", "))
        assert allowed == methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()), path
        refused = http.ask("DELETE", filled(path), None, {})
        assert refused.status == 405
        assert set(refused.headers["Allow"].split(",")) == allowed - {"OPTIONS"}
        assert_named_and_timed(options)
        assert_named_and_timed(refused)


def test_a_head_request_has_the_headers_and_no_body(http: Http, document: Any) -> None:
    for path, item in document["paths"].items():
        answer = http.ask("HEAD", filled(path), None, {})
        assert answer.status in ((200, 404) if "get" in item else (405,)), path
        assert answer.body == b""
        assert_named_and_timed(answer)


@pytest.mark.parametrize("path", ["/nowhere", "/v2/nowhere", "/v1/nowhere", "/predict/a/b"])
def test_nothing_there_is_told_in_the_form_of_the_protocol(http: Http, path: str) -> None:
    answer = http.get(path)
    assert answer.status == 404
    assert_named_and_timed(answer)
    assert ("error" if path.startswith("/v") else "detail") in answer.json


def test_a_name_ends_at_a_colon_where_tensorflow_serving_has_methods(http: Http) -> None:
    for path in (
        "/v1/models/grey:predict",
        "/v1/models/grey/versions/1:predict",
        "/v1/models/grey/labels/latest:predict",
    ):
        assert http.get(path).status == 405


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: the-impossible\r\n\r\n", 417),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", 400),
    ],
)
def test_what_never_reaches_a_handler_has_them_too(server: ServerProcess, request_bytes: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.sendall(request_bytes)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    headers = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert head.split()[1] == str(status).encode()
    assert {b"x-request-id", b"server-timing"} <= headers
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body).keys() == {"type", "title", "status", "detail", "request_id"}
