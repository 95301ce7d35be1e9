"""Models that come and go because a request says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos import inference_pb2 as pb
from protos import inference_pb2_grpc as pb_grpc
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Answer, Http
from tests.wire.server_process import ServerProcess, run_server

pytestmark = pytest.mark.slow  # each starts a server process


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "grey", 1)
    write_bundle(tmp_path / "models", "other", 1)
    return tmp_path / "models"


@pytest.fixture
def explicit(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    with run_server(models, tmp_path / "run", "--model-control", "explicit", "--preload", "grey") as server:
        yield server
        assert "Traceback" not in server.log


def post(http: Http, path: str, body: bytes = b"") -> Answer:
    return http.ask("POST", path, body, {})


def states(http: Http) -> dict[tuple[str, str], str]:
    return {(entry["name"], entry["version"]): entry["state"] for entry in post(http, "/v2/repository/index").json}


def test_http_loads_and_unloads(explicit: ServerProcess, models: Path) -> None:
    with Http(explicit.http_port) as http:
        assert http.get("/v2/models/other/ready").status == 404
        assert post(http, "/v2/repository/models/other/load").status == 200
        assert http.get("/v2/models/other/ready").status == 200
        write_bundle(models, "other", 2)
        assert post(http, "/v2/repository/models/other/load", b'{"parameters": {}}').status == 200
        assert "2" in http.get("/v2/models/other").json["versions"]  # 1 stands by while 2 is on probation
        unloaded = post(http, "/v2/repository/models/other/unload", b'{"parameters": {"unload_dependents": false}}')
        assert unloaded.status == 200
        assert http.get("/v2/models/other/ready").status == 404
        assert states(http)["grey", "1"] == "READY"
        assert post(http, "/v2/repository/models/nothing/load").status == 404
        assert post(http, "/v2/repository/models/other/unload").status == 404


def test_a_server_may_begin_with_no_model_at_all(models: Path, tmp_path: Path) -> None:
    with run_server(models, tmp_path / "run", "--model-control", "explicit") as server:
        assert "serves no model yet" in server.log
        assert f"curl -X POST {server.url}/v2/repository/models/NAME/load" in server.log
        with Http(server.http_port) as http:
            assert http.get("/health/live").status == 200
            assert http.get("/health/ready").status == 503
            assert http.ask("POST", "/v2/repository/models/grey/load", b"", {}).status == 200
            assert http.get("/health/ready").status == 200
            assert http.predict(picture(250)).json["model"] == "grey"


def test_grpc_loads_and_unloads(explicit: ServerProcess) -> None:
    with explicit.channel() as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="other"))
        assert stub.ModelReady(pb.ModelReadyRequest(name="other")).ready
        assert {model.name for model in stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models} == {
            "grey",
            "other",
        }
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="grey"))
        assert not stub.ModelReady(pb.ModelReadyRequest(name="grey")).ready
        assert stub.ServerReady(pb.ServerReadyRequest()).ready
        with pytest.raises(grpc.RpcError) as raised:
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest())
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_damaged_model_is_not_loaded(explicit: ServerProcess, models: Path) -> None:
    (models / "other" / "1" / "model.onnx").write_bytes(b"damaged")
    with Http(explicit.http_port) as http:
        answer = post(http, "/v2/repository/models/other/load")
        assert answer.status == 503
        assert "bytes" in answer.json["error"]
        assert states(http)["other", "1"] == "UNAVAILABLE"


def test_several_workers_refuse_what_would_hold_for_one(models: Path, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--model-control", "explicit", "--preload", "grey")
    with run_server(models, tmp_path / "run", *flags) as server, Http(server.http_port) as http:
        for path, body in (
            ("/v2/repository/models/other/load", {}),
            ("/v2/repository/models/grey/unload", {}),
            ("/v2/trace/setting", {"trace_rate": "1"}),
            ("/v2/logging", {"log_info": False}),
        ):
            answer = post(http, path, json.dumps(body).encode())
            assert answer.status == 503, path
            assert "--workers 1" in answer.json["error"]
        assert http.get("/v2/models/grey/ready").status == 200
        assert http.get("/v2/logging").json["log_info"] is True
