"""The Open Inference Protocol byte by byte: what well-behaved clients never send, and what curl would."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from protos import inference_pb2 as pb
from protos import inference_pb2_grpc as pb_grpc
from server.transports.codecs.v2_messages import CONTENTS
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Answer, Http
from tests.wire.server_process import ServerProcess, run_server
from tests.wire.v2_models import DATATYPES, write_models

pytestmark = pytest.mark.slow  # starts from a server process
LENGTH = "Inference-Header-Content-Length"
VALUES: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": [b"a", b"bc"]}


@pytest.fixture(scope="module")
def v2_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    write_models(models)
    limits = ("--max-body-bytes", "200000", "--latency-budget-ms", "5000", "--default-model", "grey")
    with run_server(models, tmp_path_factory.mktemp("server"), *limits) as process:
        yield process
        assert "Traceback" not in process.log


@pytest.fixture
def stub(v2_server: ServerProcess) -> Iterator[pb_grpc.GRPCInferenceServiceStub]:
    with v2_server.channel() as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def v2_http(v2_server: ServerProcess) -> Iterator[Http]:
    with Http(v2_server.http_port) as client:
        yield client


def infer(http: Http, model: str, body: Any, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.ask("POST", f"/v2/models/{model}/infer", content, sent)


def message(model: str, datatype: str, shape: list[int], **contents: list[Any]) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor])


# ---- gRPC ----


@pytest.mark.parametrize("datatype", DATATYPES)
def test_typed_contents_of_every_datatype_are_answered_raw(
    stub: pb_grpc.GRPCInferenceServiceStub, datatype: str
) -> None:
    values = VALUES.get(datatype, [1, 2])
    typed = message(f"echo_{datatype}", datatype, [1, 2], **{CONTENTS[datatype]: values})
    answer = stub.ModelInfer(typed)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 2])
    again = message(f"echo_{datatype}", datatype, [1, 2])
    again.raw_input_contents.extend(answer.raw_output_contents)
    assert stub.ModelInfer(again).raw_output_contents == answer.raw_output_contents
    assert len(answer.raw_output_contents) == 1


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.ModelInferRequest(model_name="sum"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ModelInferRequest(model_name="nothing"), grpc.StatusCode.NOT_FOUND),
        (pb.ModelInferRequest(model_name="sum", model_version="x"), grpc.StatusCode.INVALID_ARGUMENT),
        (message("echo_UINT8", "UINT8", [1, 2], uint_contents=[1, 256]), grpc.StatusCode.INVALID_ARGUMENT),
        (message("echo_UINT8", "UINT8", [2**62, 2**62]), grpc.StatusCode.INVALID_ARGUMENT),
        (message("echo_UINT8", "UINT8", [0, 2]), grpc.StatusCode.INVALID_ARGUMENT),
        (message("fixed", "INT64", [2, 2], int64_contents=[1] * 4), grpc.StatusCode.INVALID_ARGUMENT),
        (message("grey", "BYTES", [1]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_requests_that_are_refused(
    stub: pb_grpc.GRPCInferenceServiceStub, request_: pb.ModelInferRequest, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request_)
    assert raised.value.code() == code, raised.value.details()


def test_a_refused_request_of_a_stream_is_told_in_band_with_its_id(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    good = message("echo_INT8", "INT8", [1, 2], int_contents=[1, 2])
    bad = pb.ModelInferRequest(model_name="nothing", id="b")
    good.id = "g"
    answers = [*stub.ModelStreamInfer(iter([good, bad, good]))]
    assert [(answer.infer_response.id, bool(answer.error_message)) for answer in answers] == [
        ("g", False),
        ("b", True),
        ("g", False),
    ]


def test_a_cancelled_call_leaves_the_server_well(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    for _ in range(20):
        stub.ModelInfer.future(message("echo_INT8", "INT8", [1, 2], int_contents=[1, 2])).cancel()
    assert stub.ModelInfer(message("echo_INT8", "INT8", [1, 2], int_contents=[1, 2])).outputs[0].name == "y"


def test_a_model_that_is_not_there_is_not_ready(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    assert not stub.ModelReady(pb.ModelReadyRequest(name="nothing")).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="fixed", version="1")).ready
    with pytest.raises(grpc.RpcError) as raised:
        stub.LogSettings(pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue()}))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# ---- HTTP ----


def test_curl_sends_a_picture(v2_http: Http) -> None:
    answer = infer(v2_http, "grey", picture(250), Inference_Header_Content_Length="0")
    assert answer.status == 200
    (output,) = answer.json["outputs"]
    assert np.argmax(output["data"]) == 2
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [1, 3])
    assert "infer;dur=" in answer.headers["Server-Timing"]


def test_plain_json_there_and_back(v2_http: Http) -> None:
    inputs = [
        {"name": name, "shape": [1, 16], "datatype": "INT32", "data": [list(range(16))]}
        for name in ("INPUT0", "INPUT1")
    ]
    answer = infer(v2_http, "sum/versions/1", {"id": "q", "inputs": inputs, "outputs": [{"name": "OUTPUT0"}]})
    assert answer.json == {
        "model_name": "sum",
        "model_version": "1",
        "id": "q",
        "outputs": [
            {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 16], "data": [2 * number for number in range(16)]}
        ],
    }
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "text/plain", "nonsense"])
def test_no_content_type_matters(v2_http: Http, content_type: str) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT8", "data": [1, 2]}]}
    assert infer(v2_http, "echo_INT8", body, Content_Type=content_type).json["outputs"][0]["data"] == [1, 2]


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_both_ways(v2_http: Http, coding: str, compress: Any) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}]}
    answer = infer(
        v2_http, "wide", compress(json.dumps(body).encode()), Content_Encoding=coding, Accept_Encoding=coding
    )
    assert answer.headers["Content-Encoding"] == coding
    expanded = gzip.decompress(answer.body) if coding == "gzip" else zlib.decompress(answer.body)
    assert json.loads(expanded)["outputs"][0]["data"] == [0.5] * 2000
    refused = infer(v2_http, "wide", body, Accept_Encoding=f"{coding};q=0")
    assert "Content-Encoding" not in refused.headers
    assert refused.json["outputs"][0]["data"] == [0.5] * 2000


def test_a_body_that_grows_beyond_the_limit_is_refused(v2_http: Http) -> None:
    bomb = gzip.compress(b" " * 1_000_000)
    answer = infer(v2_http, "wide", bomb, Content_Encoding="gzip")
    assert answer.status == 413
    assert "200,000 bytes" in answer.json["error"]
    assert infer(v2_http, "wide", b"no gzip", Content_Encoding="gzip").status == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v2/nothing", b"", 404),
        ("POST", "/v2", b"", 405),
        ("GET", "/v2/models/nothing", b"", 404),
        ("GET", "/v2/models/nothing/ready", b"", 404),
        ("GET", "/v2/models/sum/versions/0", b"", 400),
        ("GET", "/v2/systemsharedmemory/region/r/status", b"", 404),
        ("POST", "/v2/models/sum/infer", b"", 400),
        ("POST", "/v2/models/sum/infer", b"{", 400),
        ("POST", "/v2/models/sum/infer", b"\xff\x00", 400),
        ("POST", "/v2/models/sum/infer", b"{}", 400),
        ("POST", "/v2/models/fixed/infer", b'{"inputs": [{"name": "\xed\xa0\x80"}]}', 400),
        ("POST", "/v2/models/n%FFthing/infer", b"{}", 404),
        ("POST", "/v2/repository/index", b'{"ready": 1}', 400),
        ("POST", "/v2/repository/models/sum/load", b"", 503),
        ("POST", "/v2/repository/models/sum/load", b'{"parameters": {"config": "{}"}}', 400),
        ("POST", "/v2/repository/models/sum/unload", b'{"parameters": 1}', 400),
        ("POST", "/v2/trace/setting", b'{"trace_rate": "often"}', 400),
        ("POST", "/v2/trace/setting", b'{"trace_rate": {}}', 400),
        ("POST", "/v2/logging", b'{"log_info": 1}', 400),
    ],
)
def test_errors_are_one_text(v2_http: Http, method: str, path: str, body: bytes, status: int) -> None:
    answer = v2_http.ask(method, path, body, {})
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize("length", ["-1", "x", "9" * 20, "999"])
def test_a_header_length_that_cannot_be(v2_http: Http, length: str) -> None:
    assert infer(v2_http, "sum", b"{}", Inference_Header_Content_Length=length).status == 400


def test_health_is_told_in_words_too(v2_http: Http) -> None:
    assert v2_http.get("/v2/health/live").json == {"live": True}
    assert v2_http.get("/v2/health/ready").json == {"ready": True}
    assert v2_http.get("/v2/models/sum/versions/1/ready").json == {"name": "sum", "ready": True}


def test_the_index_of_what_is_ready(v2_http: Http) -> None:
    answer = v2_http.ask("POST", "/v2/repository/index", b'{"ready": true}', {}).json
    assert {"name": "sum", "version": "1", "state": "READY", "reason": ""} in answer


def test_the_routes_are_listed(v2_http: Http) -> None:
    routes = {(route["method"], route["path"]) for route in v2_http.get("/routes").json["routes"]}
    assert {("POST", "/v2/models/{model}/infer"), ("GET", "/v2"), ("POST", "/predict")} <= routes


def test_a_trace_is_in_the_log(v2_http: Http, v2_server: ServerProcess) -> None:
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": 1, "trace_count": "2"}
    assert v2_http.ask("POST", "/v2/models/echo_INT8/trace/setting", json.dumps(settings).encode(), {}).status == 200
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT8", "data": [1, 2]}]}
    for number in range(4):
        assert infer(v2_http, "echo_INT8", body, X_Request_Id=f"traced-{number}").status == 200
    traced = [number for number in range(4) if f'"request_id": "traced-{number}"' in v2_server.log]
    assert traced == [0, 1]
    assert '"infer_us"' in v2_server.log
