import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.wire.bundles import expected_probabilities, picture
from tests.wire.http_client import Answer, Http, form
from tests.wire.server_process import ServerProcess

pytestmark = pytest.mark.slow  # each starts from a server process


def assert_problem(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem = answer.json
    assert problem.keys() == {"type", "title", "status", "detail", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert "Server-Timing" in answer.headers
    for word in words:
        assert word in problem["detail"]


def assert_bright(answer: Answer, count: int = 1) -> None:
    assert answer.status == 200, answer.body
    document = answer.json
    assert document["predictions"] == [2] * count
    assert document["labels"] == ["bright"] * count
    for row in document["probabilities"]:
        assert row == pytest.approx(expected_probabilities(250).tolist(), abs=1e-6)
    assert document["confidence"] == [max(row) for row in document["probabilities"]]


FLAT = [250] * 64
NESTED = [[250] * 8] * 8


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (FLAT, 1),
        (NESTED, 1),
        ([[[250]] * 8] * 8, 1),
        ([FLAT, FLAT], 2),
        ([NESTED, NESTED, NESTED], 3),
        ([[[[250]] * 8] * 8], 1),
        ([250.0] * 64, 1),
    ],
)
def test_numbers_in_every_documented_shape(http: Http, data: list[object], count: int) -> None:
    assert_bright(http.predict({"data": data}), count)


def test_fractions_up_to_1_are_pixels_over_255(http: Http) -> None:
    assert_bright(http.predict({"data": [250 / 255] * 64}))


def test_a_scale_settles_what_is_ambiguous(http: Http) -> None:
    ones = {"data": [1] * 64}
    assert_problem(http.predict(ones), 400, "0..255 or 0..1", '"scale"')
    assert http.predict(ones | {"scale": "0-1"}).json["labels"] == ["bright"]
    assert http.predict(ones | {"scale": "0-255"}).json["labels"] == ["dark"]


@pytest.mark.parametrize("form_of_file", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "", "text/plain"])
def test_a_picture_as_body_whatever_its_type_says(http: Http, form_of_file: str, content_type: str) -> None:
    answer = http.predict(picture(250, form=form_of_file), content_type)
    assert answer.json["labels"] == ["bright"]


def test_several_files_in_one_form_keep_their_order(http: Http) -> None:
    body, content_type = form(
        ("file", "a.png", picture(10)), ("other", "b.jpg", picture(120, form="JPEG")), ("file", "", picture(250))
    )
    assert http.predict(body, content_type).json["labels"] == ["dark", "dim", "bright"]


def test_top_k_in_a_form_in_json_and_in_the_query(http: Http) -> None:
    body, content_type = form(("file", "a.png", picture(250)), ("top_k", None, b"2"))
    expected = ["bright", "dim"]
    in_form = http.predict(body, content_type).json["top"][0]
    assert [entry["label"] for entry in in_form] == expected
    assert [entry["class"] for entry in in_form] == [2, 1]
    in_json = http.predict({"data": FLAT, "top_k": 2}).json["top"][0]
    assert [entry["label"] for entry in in_json] == expected
    in_query = http.predict({"data": FLAT}, path="/predict?top_k=99").json["top"][0]
    assert len(in_query) == 3


def test_pictures_as_base64(http: Http) -> None:
    encoded = base64.b64encode(picture(250)).decode()
    assert_bright(http.predict({"images": [encoded, "data:image/png;base64," + encoded]}), 2)


def test_json_without_its_content_type(http: Http) -> None:
    assert_bright(http.predict(json.dumps({"data": FLAT}).encode(), "application/x-www-form-urlencoded"))


def test_a_model_by_path_and_by_query(http: Http) -> None:
    large = picture(250, 100, 50, 3)
    for path in ("/predict/rgb", "/predict?model=rgb", "/predict/rgb?version=1"):
        answer = http.predict(large, path=path)
        assert answer.json["model"] == "rgb"
        assert answer.json["version"] == 1
        assert answer.json["labels"] == ["bright"]


def test_a_large_picture_is_decoded_too(http: Http) -> None:
    answer = http.predict(picture(250, 900, 1000, 3), path="/predict/rgb")
    assert answer.json["labels"] == ["bright"]
    assert "decode;dur=" in answer.headers["Server-Timing"]


# ---- bad input: one clear line, the right status ----

BAD_JSON = [
    ({"data": [1, 2, 3]}, 400, ["[64]", "[8, 8]", "received [3]"]),
    ({"data": [[250] * 8] * 7 + [[250] * 9]}, 400, ["[8, 8]", "a list of 9 in place of 8 at data[7]"]),
    ({"data": ["a"] * 64}, 400, ["numbers", "'a'"]),
    ({"data": [None] * 64}, 400, ["null"]),
    ({"data": [300] * 64}, 400, ["0..255", "300"]),
    ({"data": [-1] * 63 + [5]}, 400, ["-1"]),
    ({"data": [1.5] * 64}, 400, ["scale"]),
    ({"data": [0.5] * 64, "scale": "0-2"}, 400, ["0-255"]),
    ({"data": [0.5] * 63 + [1.5], "scale": "0-1"}, 400, ["0..1"]),
    ({"data": []}, 400, ["empty"]),
    ({"data": "abc"}, 400, ["'abc'"]),
    ({"data": FLAT, "scael": "0-1"}, 400, ["scael"]),
    ({"data": FLAT, "top_k": 0}, 400, ["top_k"]),
    ({"data": FLAT, "top_k": True}, 400, ["top_k"]),
    ({"images": ["%%%"]}, 400, ["base64"]),
    ({"images": []}, 400, ["images"]),
    ({}, 400, ["data"]),
    ({"images": [base64.b64encode(b"no picture").decode()]}, 415, ["no picture"]),
]


@pytest.mark.parametrize(("document", "status", "words"), BAD_JSON)
def test_bad_json_documents(http: Http, document: dict[str, object], status: int, words: list[str]) -> None:
    assert_problem(http.predict(document), status, *words)


@pytest.mark.parametrize("body", [b'{"data": [1,', b"[1, 2]", b'{"data": NaN}', b"\xff{", b'"text"'])
def test_bodies_that_are_no_json_object(http: Http, body: bytes) -> None:
    assert_problem(http.predict(body, "application/json"), 400, "JSON")


def test_an_empty_body(http: Http) -> None:
    assert_problem(http.predict(b""), 400, "empty")
    assert_problem(http.predict(b"", "image/png"), 400, "empty")


def test_a_text_file_named_jpg(http: Http) -> None:
    body, content_type = form(("file", "holiday.jpg", b"Dear diary, today we went swimming"))
    assert_problem(http.predict(body, content_type), 415, "Dear diary", "JPEG")
    assert_problem(http.predict(b"Dear diary", "image/jpeg"), 415, "JPEG")
    assert_problem(http.predict(b'{"data": [1]}', "image/jpeg"), 415, "JPEG")


def test_a_damaged_picture_among_good_ones_is_named(http: Http) -> None:
    body, content_type = form(("a", "a.png", picture(250)), ("b", "b.png", picture(250)[:-30]))
    assert_problem(http.predict(body, content_type), 415, "picture 2")


def test_a_decompression_bomb_is_refused_by_its_header(http: Http) -> None:
    assert_problem(http.predict(picture(0, 4000, 4000), "image/png"), 415, "1,000,000 pixels")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--x\r\n\r\nabc", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nabc\r\n--x--", "multipart/form-data"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (form(("file", "a.png", b""))[0], form()[1]),
        (form(("top_k", None, b"3"))[0], form()[1]),
    ],
)
def test_bad_forms(http: Http, body: bytes, content_type: str) -> None:
    assert_problem(http.predict(body, content_type), 400)


def test_a_body_over_the_limit_announced_or_chunked(http: Http) -> None:
    assert_problem(http.predict(bytes(200_001)), 413, "200,000 bytes", "--max-body-bytes")
    assert_problem(http.predict(iter([bytes(50_000)] * 5)), 413, "200,000 bytes")


def test_unknown_model_version_path_and_method(http: Http) -> None:
    assert_problem(http.predict({"data": FLAT}, path="/predict/nope"), 404, "'nope'", "'grey'")
    assert_problem(http.predict({"data": FLAT}, path="/predict?version=9"), 404, "9")
    assert_problem(http.predict({"data": FLAT}, path="/predict?version=x"), 400, "'x'")
    assert_problem(http.get("/nope"), 404, "/routes")
    not_allowed = http.get("/predict")
    assert_problem(not_allowed, 405, "POST")
    assert not_allowed.headers["Allow"] == "POST"


def test_a_budget_that_cannot_be_met_or_read(http: Http) -> None:
    assert_problem(http.predict({"data": FLAT}, X_Latency_Budget_Ms="0.001"), 504)
    for budget in ("-1", "0", "nan", "soon", "inf"):
        assert_problem(http.predict({"data": FLAT}, X_Latency_Budget_Ms=budget), 400, "X-Latency-Budget-Ms")


def test_garbage_on_the_socket_does_not_end_the_server(server: ServerProcess, http: Http) -> None:
    assert http.ask("GET", "/health", None, {"Content-Length": "x"}).status == 400
    assert_bright(http.predict({"data": FLAT}))


def test_a_lying_content_encoding(http: Http) -> None:
    assert http.predict(b"not gzip at all", "image/png", Content_Encoding="gzip").status == 400
    assert_bright(http.predict({"data": FLAT}))


# ---- what comes with every answer ----


def test_a_sound_request_id_is_echoed_and_another_is_made(http: Http) -> None:
    given = http.predict({"data": FLAT}, X_Request_Id="order-66/a")
    assert given.headers["X-Request-Id"] == given.json["request_id"] == "order-66/a"
    made = {http.predict({"data": FLAT}, X_Request_Id="<script>").headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2
    assert "<script>" not in made


def test_every_stage_is_timed(http: Http) -> None:
    timing = http.predict(picture(250)).headers["Server-Timing"]
    assert [part.split(";")[0] for part in timing.split(", ")] == ["decode", "queue", "infer", "total"]


# ---- the other routes ----


def test_health(http: Http) -> None:
    for path in ("/health", "/health/ready"):
        health = http.get(path)
        assert health.status == 200
        assert health.json["status"] == "ok"
        assert health.json["model_loaded"] is True
        assert health.json["model"] == "grey"
        assert health.json["version"] == 1
    assert http.get("/health/live").status == 200


def test_model_info(http: Http) -> None:
    info = http.get("/model-info?model=rgb").json
    assert info["architecture"] == "brightness"
    assert info["framework"] == "onnx.helper"
    assert info["input_shape"] == [-1, 32, 32, 3]
    assert info["output_shape"] == [-1, 3]
    assert info["parameters"] == 6
    assert info["metrics"] == {"accuracy": 1.0}
    assert info["preprocessing"]["resize"] == "bilinear-antialias"
    assert info["labels"] == ["dark", "dim", "bright"]
    assert {(entry["name"], entry["state"]) for entry in info["versions"]} == {("grey", "ready"), ("rgb", "ready")}
    assert_problem(http.get("/model-info?model=nope"), 404)


def test_every_route_is_listed_and_there(http: Http) -> None:
    routes = http.get("/routes").json["routes"]
    assert {"/", "/health", "/model-info", "/routes", "/metrics", "/predict"} <= {route["path"] for route in routes}
    for route in routes:
        path = route["path"].replace("/static/{name}", "/static/app.js")
        if route["method"] == "GET" and "{" not in path:
            assert http.get(path).status == 200
            assert http.ask("HEAD", path, None, {}).status == 200


def test_the_page_names_no_other_host(http: Http) -> None:
    page = http.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert b"/predict" in page.body
    assert b"http://" not in page.body
    assert b"https://" not in page.body


def test_the_example_is_a_picture_that_the_model_knows(http: Http) -> None:
    labels = [http.predict(http.get(f"/example?number={number}").body).json["labels"][0] for number in range(4)]
    assert labels == ["dark", "dim", "bright", "dark"]
    assert_problem(http.get("/example?number=-1"), 400)


def test_metrics_tell_requests_and_never_names_from_callers(http: Http) -> None:
    http.predict({"data": FLAT})
    http.predict({"data": FLAT}, path="/predict/made-up-name")
    page = http.get("/metrics").body.decode()
    assert 'shoal_requests_total{model="grey",outcome="ok",protocol="http",version="1"}' in page
    assert 'outcome="ModelNotFound"' in page
    assert "made-up-name" not in page
    assert 'shoal_request_seconds_bucket{le="0.2",model="grey"' in page
    assert 'shoal_batch_rows_bucket{le="1",model="grey"' in page
    assert "process_resident_memory_bytes" in page


def test_good_requests_are_answered_rightly_amid_garbage(server: ServerProcess) -> None:
    garbage = [bytes([i]) * 5000 for i in range(64)] + [picture(250)[:40]] * 36

    def good(level: int) -> list[str]:
        with Http(server.http_port) as http:
            return [http.predict(picture(level)).json["labels"][0] for _ in range(40)]

    def bad(part: int) -> set[int]:
        with Http(server.http_port) as http:
            return {http.predict(body, "image/png").status for body in garbage[part::2]}

    with ThreadPoolExecutor(8) as pool:
        statuses = [pool.submit(bad, part) for part in range(2)]
        answers = {level: pool.submit(good, level) for level in (10, 120, 250)}
        assert answers[10].result() == ["dark"] * 40
        assert answers[120].result() == ["dim"] * 40
        assert answers[250].result() == ["bright"] * 40
        assert {status for future in statuses for status in future.result()} == {415}
