"""The hot path and aiohttp answer the same, byte for byte but for names and times."""

import json
import re

import pytest

from tests.wire.bundles import picture
from tests.wire.http_client import Answer, Http, form
from tests.wire.server_process import ServerProcess

pytestmark = pytest.mark.slow  # each starts from a server process

# A header that the hot path leaves to aiohttp, and that changes nothing there.
ASIDE = {"Cookie": "a=b"}
PICTURE = picture(250)
FORM, FORM_TYPE = form(("file", "a.png", PICTURE))
RAW = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}).encode()


def told(answer: Answer) -> tuple[int, dict[str, str], str]:
    """What was answered, less what differs from answer to answer."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    for name in ("x-request-id", "date"):
        assert headers.pop(name)
    headers["server-timing"] = re.sub(r"=[0-9.]+", "=", headers["server-timing"])
    body = answer.body.decode("latin-1").replace(answer.headers["X-Request-Id"], "ID")
    headers["content-length"] = str(len(body))
    return answer.status, headers, body


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", PICTURE, {}),
        ("/predict/grey", PICTURE, {"Content-Type": "image/png", "X-Latency-Budget-Ms": "5000"}),
        ("/predict/grey", json.dumps({"data": [250] * 64, "top_k": 2}).encode(), {"Content-Type": "application/json"}),
        ("/predict", FORM, {"Content-Type": FORM_TYPE}),
        ("/v2/models/grey/infer", PICTURE, {"Inference-Header-Content-Length": "0"}),
        ("/v2/models/grey/versions/1/infer", PICTURE, {"Inference-Header-Content-Length": "0"}),
        ("/predict", b"", {}),
        ("/predict", b"no picture", {}),
        ("/predict/none", PICTURE, {}),
        ("/predict", PICTURE, {"X-Latency-Budget-Ms": "soon"}),
        ("/v2/models/none/infer", PICTURE, {"Inference-Header-Content-Length": "0"}),
        ("/v2/models/grey/versions/9/infer", PICTURE, {"Inference-Header-Content-Length": "0"}),
        ("/v2/models/grey/infer", RAW, {"Inference-Header-Content-Length": "99999"}),
        ("/v2/models/grey/infer", RAW, {}),
    ],
)
def test_both_ways_answer_the_same(server: ServerProcess, path: str, body: bytes, headers: dict[str, str]) -> None:
    with Http(server.http_port) as hot, Http(server.http_port) as aside:
        assert told(hot.ask("POST", path, body, headers)) == told(aside.ask("POST", path, body, headers | ASIDE))


def test_a_name_for_the_request_is_kept(http: Http) -> None:
    answer = http.ask("POST", "/predict", PICTURE, {"X-Request-Id": "mine-1"})
    assert (answer.status, answer.headers["X-Request-Id"], answer.json["request_id"]) == (200, "mine-1", "mine-1")
