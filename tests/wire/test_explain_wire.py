"""`POST /explain` of a real server: `grey` brings a class-activation map, `rgb` none."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.wire.bundles import LABELS, activation_map, expected_probabilities, picture
from tests.wire.http_client import Http, form
from tests.wire.server_process import ServerProcess

pytestmark = pytest.mark.slow  # starts from a server process

PIXELS = np.linspace(190, 254, 64).astype(np.uint8).reshape(8, 8)  # bright, and brightest at the bottom right


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


BRIGHT = encode(PIXELS)
IN_BASE64 = base64.b64encode(BRIGHT).decode()


def expected_map(index: int) -> np.ndarray:
    scores = np.maximum(activation_map(PIXELS[..., np.newaxis], index), 0)
    spread = scores.max() - scores.min()
    return np.asarray((scores - scores.min()) / (spread or 1))


def check(answer: Any, index: int) -> None:
    assert answer.status == 200, answer.body
    told = answer.json
    assert told["method"] == "activation-map"
    assert (told["class"], told["label"]) == (index, LABELS[index])
    assert told["probability"] == pytest.approx(expected_probabilities(PIXELS.mean())[index], abs=1e-4)
    assert (told["height"], told["width"]) == (8, 8)
    np.testing.assert_allclose(told["map"], expected_map(index), atol=1e-3)
    assert (told["model"], told["version"]) == ("grey", 1)
    assert told["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("body", "kind", "query", "index"),
    [
        (BRIGHT, "image/png", "", 2),
        (BRIGHT, "", "?class=bright", 2),
        (BRIGHT, "application/octet-stream", "?class=0", 0),
        (*form(("file", "a.png", BRIGHT)), "", 2),
        (*form(("anything", "a.png", BRIGHT), ("class", None, b"dark")), "", 0),
        ({"images": [IN_BASE64]}, "", "", 2),
        ({"images": [f"data:image/png;base64,{IN_BASE64}"], "class": 0}, "", "", 0),
        ({"images": [IN_BASE64], "class": "dark"}, "", "", 0),
        ({"images": [IN_BASE64], "class": "dark"}, "", "?class=bright&model=grey&version=1", 2),  # the query wins
    ],
    ids=range(9),
)
def test_a_picture_in_every_form(http: Http, body: Any, kind: str, query: str, index: int) -> None:
    check(http.predict(body, kind, f"/explain{query}"), index)
    check(http.predict(body, kind, f"/explain/grey{query}"), index)


def test_every_answer_says_where_its_time_went(http: Http) -> None:
    answer = http.predict(BRIGHT, path="/explain", X_Request_Id="mine")
    assert answer.json["request_id"] == "mine"
    stages = re.findall(r"(\w+);dur=[\d.]+", answer.headers["Server-Timing"])
    assert stages == ["decode", "queue", "infer", "total"]


def test_model_info_says_whether_there_is_a_map(http: Http) -> None:
    offered = {"method": "activation-map", "height": 8, "width": 8}
    assert http.get("/model-info").json["explanation"] == offered
    assert http.get("/model-info?model=rgb").json["explanation"] is None


def test_a_model_without_a_map_says_so_and_what_to_do(http: Http) -> None:
    answer = http.predict(BRIGHT, path="/explain/rgb")
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json["type"] == "urn:shoal:no-activation-map"
    assert "occlusion" in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "kind", "path", "status", "words"),
    [
        (b"", "", "/explain", 400, "received an empty body"),
        (b"Dear diary, today", "", "/explain", 415, "expected a JPEG"),
        (BRIGHT, "", "/explain?class=purple", 400, "expected class as a label of 'grey'"),
        (BRIGHT, "", "/explain?class=3", 400, "a number from 0 to 2, received '3'"),
        (BRIGHT, "", "/explain?version=one", 400, "expected a version as a whole number"),
        (BRIGHT, "", "/explain?version=9", 404, "expected a loaded version of 'grey'"),
        (BRIGHT, "", "/explain/nobody", 404, "received 'nobody'"),
        ({"images": [IN_BASE64, IN_BASE64]}, "", "/explain", 400, "expected one picture, received 2"),
        ({"images": []}, "", "/explain", 400, 'expected "images" as a list of base64 strings'),
        ({"images": [IN_BASE64], "class": True}, "", "/explain", 400, '"class" as a label or a whole number'),
        ({"images": [IN_BASE64], "class": 0.5}, "", "/explain", 400, '"class" as a label or a whole number'),
        ({"data": [1, 2]}, "", "/explain", 400, "received data"),
        (b"[1]", "", "/explain", 400, "expected a JSON object"),
        (b"{", "", "/explain", 400, "expected JSON"),
        (*form(("class", None, b"dark")), "/explain", 400, "expected one picture, received 0"),
        (*form(("file", "a.png", b"")), "/explain", 400, "without a byte"),
        (*form(("file", "a.png", BRIGHT), ("file", "b.png", BRIGHT)), "/explain", 400, "received 2"),
        (bytes(300_000), "", "/explain", 413, "at most 200,000 bytes"),
    ],
    ids=range(18),
)
def test_what_is_no_request_is_refused_in_words(
    http: Http, body: Any, kind: str, path: str, status: int, words: str
) -> None:
    answer = http.predict(body, kind, path)
    assert (answer.status, words in answer.json["detail"]) == (status, True), answer.body


def test_a_budget_is_read(http: Http) -> None:
    answer = http.predict(BRIGHT, path="/explain", X_Latency_Budget_Ms="soon")
    assert answer.status == 400
    check(http.predict(BRIGHT, path="/explain", X_Latency_Budget_Ms="20000"), 2)


def counted(http: Http, model: str, outcome: str) -> float:
    text = http.get("/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("shoal_requests_total{")]
    wanted = ('protocol="http"', f'model="{model}"', f'outcome="{outcome}"')
    return sum(float(line.split()[-1]) for line in lines if all(part in line for part in wanted))


@pytest.mark.parametrize(
    ("path", "model", "outcome"),
    [
        ("/explain", "grey", "ok"),
        ("/explain?class=purple", "grey", "InvalidInput"),
        ("/explain/rgb", "rgb", "NoActivationMap"),
        ("/explain?version=one", "", "InvalidInput"),
    ],
)
def test_maps_are_counted_as_other_requests_are(http: Http, path: str, model: str, outcome: str) -> None:
    before = counted(http, model, outcome)
    http.predict(BRIGHT, path=path)
    assert counted(http, model, outcome) == before + 1


def test_the_answer_before_and_after_a_map_is_the_same(http: Http, server: ServerProcess) -> None:
    def probabilities() -> Any:
        return http.predict(picture(200)).json["probabilities"]

    before = probabilities()
    check(http.predict(BRIGHT, path="/explain"), 2)
    assert probabilities() == before
    assert "request failed" not in server.log
