"""TensorFlow Serving's protocol and KServe's V1 over HTTP, byte by byte, against the real server process."""

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.wire.bundles import LABELS, picture
from tests.wire.http_client import Answer, Http
from tests.wire.server_process import ServerProcess
from tests.wire.tfserving_server import best, run_tf_server
from tests.wire.v2_models import DATATYPES

pytestmark = pytest.mark.slow  # starts from a server process
BRIGHT = {"b64": base64.b64encode(picture(250)).decode()}
DARK = {"b64": base64.b64encode(picture(10)).decode()}


@pytest.fixture(scope="module")
def tf_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with run_tf_server(tmp_path_factory) as process:
        yield process


@pytest.fixture
def tf_http(tf_server: ServerProcess) -> Iterator[Http]:
    with Http(tf_server.http_port) as client:
        yield client


def ask(http: Http, path: str, body: Any, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.ask("POST", f"/v1/models/{path}", content, sent)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [BRIGHT, DARK]},
        {"instances": [{"image_bytes": BRIGHT}, {"image_bytes": DARK}], "signature_name": "predict_images"},
        {"instances": [{"image": BRIGHT}, {"image": DARK}]},
        {"instances": [np.full((8, 8, 1), level).tolist() for level in (250, 10)]},
        {"inputs": [BRIGHT, DARK]},
        {"inputs": {"image": np.stack([np.full((8, 8, 1), level) for level in (250, 10)]).tolist()}},
    ],
)
def test_pictures_and_pixels(tf_http: Http, body: Any) -> None:
    answer = ask(tf_http, "grey:predict", body)
    assert answer.status == 200, answer.body
    assert best(answer.json["predictions" if "instances" in body else "outputs"]) == [2, 0]
    assert answer.headers["Content-Type"] == "application/json"
    assert "infer;dur=" in answer.headers["Server-Timing"]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_json_of_every_type(tf_http: Http, datatype: str) -> None:
    rows = [["a", "é"]] if datatype == "BYTES" else [[True, False]] if datatype == "BOOL" else [[1, 2], [3, 4]]
    assert ask(tf_http, f"echo_{datatype}:predict", {"instances": rows}).json == {"predictions": rows}
    assert ask(tf_http, f"echo_{datatype}:predict", {"inputs": {"x": rows}}).json == {"outputs": rows}


def test_bytes_there_and_back(tf_http: Http) -> None:
    rows = [[{"b64": "w6k="}, {"b64": ""}]]
    assert ask(tf_http, "echo_BYTES:predict", {"instances": rows}).json == {"predictions": [["é", ""]]}


def test_several_inputs_and_outputs(tf_http: Http) -> None:
    row = {"INPUT0": [5] * 16, "INPUT1": [2] * 16}
    told = {"OUTPUT0": [7] * 16, "OUTPUT1": [3] * 16}
    assert ask(tf_http, "sum:predict", {"instances": [row, row]}).json == {"predictions": [told, told]}
    columns = {name: [values] for name, values in row.items()}
    assert ask(tf_http, "sum:predict", {"inputs": columns}).json == {
        "outputs": {name: [values] for name, values in told.items()}
    }


def test_a_model_without_rows_takes_columns(tf_http: Http) -> None:
    assert ask(tf_http, "fixed:predict", {"inputs": [[1, 2, 3], [4, 5, 6]]}).json == {
        "outputs": [[-1, -2, -3], [-4, -5, -6]]
    }


@pytest.mark.parametrize("path", ["grey", "grey/versions/3", "grey/labels/latest"])
def test_examples_are_classified(tf_http: Http, path: str) -> None:
    answer = ask(tf_http, f"{path}:classify", {"examples": [{"image/encoded": BRIGHT}, {"image": [10] * 64}]})
    assert answer.status == 400, "one form at a time"
    for feature in ({"image/encoded": BRIGHT}, {"image": [250] * 64}):
        answer = ask(tf_http, f"{path}:classify", {"context": feature, "examples": [{}, {}]})
        assert [[label for label, _ in row] for row in answer.json["results"]] == [[*LABELS]] * 2
        assert best([[score for _, score in row] for row in answer.json["results"]]) == [2, 2]


def test_states_by_http(tf_http: Http) -> None:
    document = tf_http.get("/v1/models/grey").json
    assert (document["name"], document["ready"]) == ("grey", True)
    assert [(entry["version"], entry["state"]) for entry in document["model_version_status"]] == [
        ("3", "AVAILABLE"),
        ("2", "END"),
        ("1", "AVAILABLE"),
    ]
    assert document["model_version_status"][1]["status"]["error_code"] == "FAILED_PRECONDITION"
    (latest,) = tf_http.get("/v1/models/grey/labels/latest").json["model_version_status"]
    assert latest["version"] == "3"
    bad = tf_http.get("/v1/models/grey/versions/2").json
    assert (bad["ready"], len(bad["model_version_status"])) == (False, 1)
    assert {"grey", "sum"} <= {*tf_http.get("/v1/models").json["models"]}


def test_metadata_by_http(tf_http: Http) -> None:
    document = tf_http.get("/v1/models/grey/versions/1/metadata").json
    assert document["model_spec"] == {"name": "grey", "signature_name": "", "version": "1"}
    image = document["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["image"]
    assert image["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "8", "8", "1"]


def test_kserve_asks_whether_it_lives_at_the_root(tf_http: Http) -> None:
    assert tf_http.get("/", Accept="*/*").json == {"status": "alive"}
    assert tf_http.get("/", Accept="text/html,*/*").headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nothing:predict", {"instances": [1]}, 404),
        ("grey/versions/9:predict", {"instances": [BRIGHT]}, 404),
        ("grey/versions/x:predict", {"instances": [BRIGHT]}, 400),
        ("grey/versions/2:predict", {"instances": [BRIGHT]}, 503),
        ("grey/labels/stable:predict", {"instances": [BRIGHT]}, 400),
        ("grey:predict", b"", 400),
        ("grey:predict", b"\xff", 400),
        ("grey:predict", {}, 400),
        ("grey:predict", {"instances": [{"b64": "AAAA"}]}, 400),
        ("grey:predict", {"instances": ["text"]}, 400),
        ("grey:predict", b'{"instances": ["\xed\xa0\x80"]}', 400),
        ("fixed:predict", {"instances": [[1, 2, 3], [4, 5]]}, 400),
        ("grey:classify", {"examples": []}, 400),
        ("sum:classify", {"examples": [{"INPUT0": [1] * 16, "INPUT1": [1] * 16}]}, 400),
        ("grey:regress", {"examples": [{}]}, 400),
        ("grey:explain", {"instances": [BRIGHT]}, 400),
        ("grey:nonsense", {}, 404),
        ("grey", {}, 405),
    ],
)
def test_errors_are_one_text(tf_http: Http, path: str, body: Any, status: int) -> None:
    answer = ask(tf_http, path, body)
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["", "/nothing", "/models/nothing", "/models/nothing/metadata", "/models/grey/x"])
def test_what_is_not_there(tf_http: Http, path: str) -> None:
    answer = tf_http.get(f"/v1{path}")
    assert answer.status == 404
    assert list(answer.json) == ["error"]


def test_bodies_are_limited_after_decompression(tf_http: Http) -> None:
    body = gzip.compress(json.dumps({"instances": [BRIGHT]}).encode())
    assert ask(tf_http, "grey:predict", body, Content_Encoding="gzip").status == 200
    assert ask(tf_http, "grey:predict", b" " * 200_001).status == 413
    bomb = ask(tf_http, "grey:predict", gzip.compress(b" " * 1_000_000), Content_Encoding="gzip")
    assert bomb.status == 413
    assert "200,000 bytes" in bomb.json["error"]


def test_budgets_and_request_ids_by_http(tf_http: Http) -> None:
    pixels = {"instances": np.zeros((1, 8, 8, 1)).astype(int).tolist()}
    late = ask(tf_http, "slow:predict", pixels, X_Latency_Budget_Ms="0.001")
    assert late.status in (429, 504), late.body
    assert ("Retry-After" in late.headers) == (late.status == 429)
    assert ask(tf_http, "slow:predict", pixels, X_Latency_Budget_Ms="x").status == 400
    assert ask(tf_http, "slow:predict", pixels, X_Request_Id="mine").headers["X-Request-Id"] == "mine"


def test_metrics_count_what_could_not_be_read(tf_http: Http) -> None:
    def counted() -> float:
        lines = tf_http.get("/metrics").body.decode().splitlines()
        found = [line for line in lines if 'outcome="InvalidInput"' in line and 'protocol="tfserving_http"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found if line.startswith("shoal_requests_total"))

    before = counted()
    ask(tf_http, "grey:predict", {})
    assert counted() == before + 1
