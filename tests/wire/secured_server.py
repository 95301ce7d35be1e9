"""A real server that asks who is there, and one way to ask it for each door: each answers 200, 401 or 403."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

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
from tests.wire.tokens import AUDIENCE, ISSUER, SECRET, Issuer, serve_issuer

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
    revoked_file: Path

    def bearer(self, token: str) -> Headers:
        return {"Authorization": f"Bearer {token}"}


def run_secured(folder: Path, grpc_host: str = "grpcio") -> Iterator[Secured]:
    write_bundle(folder / "models", "grey", 1)
    made = {name: make_key(name, scopes) for name, scopes in KEYS.items()}
    (folder / "keys").write_text("# of the tests\n" + "".join(f"{line}\n" for _, line in made.values()))
    (folder / "secret").write_text(f"{SECRET}\n")
    (folder / "revoked").write_text("# of the tests\n")
    with serve_issuer() as issuer:
        flags = {
            "--jwt-key-file": folder / "secret",
            "--jwks": issuer.url,
            "--jwks-refresh-s": 0.2,
            "--jwt-issuer": ISSUER,
            "--jwt-audience": AUDIENCE,
            "--jwt-leeway-s": 0,
            "--jwt-revoked": folder / "revoked",
            "--api-keys": folder / "keys",
            "--model-control": "explicit",
            "--preload": "grey",
            "--grpc-host": grpc_host,
            "--latency-budget-ms": 5000,
        }
        given = [text for flag, value in flags.items() for text in (flag, str(value))]
        with run_server(folder / "models", folder / "server", *given) as server:
            keys = {name: key for name, (key, _) in made.items()}
            yield Secured(server, issuer, keys, folder / "keys", folder / "revoked")


KEYS = {"ci": ["predict"], "boss": ["predict", "admin"], "prometheus": ["metrics"], "judge": ["feedback"]}


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
