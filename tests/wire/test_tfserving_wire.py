"""TensorFlow Serving's protocol over gRPC, message by message, against the real server process."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos import tensorflow_pb2 as tf
from protos import tensorflow_serving_pb2 as pb
from protos import tensorflow_serving_pb2_grpc as pb_grpc
from server.transports.codecs.tfserving_tensors import BY_DATATYPE, decode, encode
from tests.wire.bundles import LABELS, picture
from tests.wire.server_process import ServerProcess
from tests.wire.tfserving_server import best, run_tf_server
from tests.wire.v2_models import DATATYPES

pytestmark = pytest.mark.slow  # starts from a server process
CODE = grpc.StatusCode
VALUES: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": [b"a", "é".encode()]}


@pytest.fixture(scope="module")
def tf_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with run_tf_server(tmp_path_factory) as process:
        yield process


@pytest.fixture
def channel(tf_server: ServerProcess) -> Iterator[grpc.Channel]:
    with tf_server.channel() as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.PredictionServiceStub:
    return pb_grpc.PredictionServiceStub(channel)


def spec(name: str, version: int | None = None, *, version_label: str = "", signature_name: str = "") -> pb.ModelSpec:
    made = pb.ModelSpec(name=name, signature_name=signature_name)
    if version_label:
        made.version_label = version_label
    if version is not None:
        made.version.value = version
    return made


def predict(model: pb.ModelSpec, *output_filter: str, **inputs: tf.TensorProto) -> pb.PredictRequest:
    request = pb.PredictRequest(model_spec=model, output_filter=output_filter)
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return request


def strings(*values: bytes) -> tf.TensorProto:
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=len(values))])
    return tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape, string_val=values)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_tensors_of_every_type_in_both_forms(stub: pb_grpc.PredictionServiceStub, datatype: str) -> None:
    model, form = spec(f"echo_{datatype}"), BY_DATATYPE[datatype]
    array = np.array([VALUES.get(datatype, [1, 2])], dtype=None if datatype in VALUES else DTYPE[datatype])
    typed = encode(array if datatype != "BYTES" else array.astype(np.object_))
    answer = stub.Predict(predict(model, x=typed))
    assert answer.outputs["y"] == typed
    assert len(getattr(answer.outputs["y"], form.field)) == 2
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "serving_default")
    if datatype != "BYTES":
        packed = tf.TensorProto(dtype=form.number, tensor_shape=typed.tensor_shape, tensor_content=array.tobytes())
        assert stub.Predict(predict(model, x=packed)).outputs["y"] == typed


DTYPE = {
    **{name: name.lower() for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def test_one_value_fills_a_tensor_up(stub: pb_grpc.PredictionServiceStub) -> None:
    pixels = encode(np.zeros((2, 8, 8, 1), np.uint8))
    pixels.ClearField("int_val")
    pixels.int_val.append(250)
    answer = stub.Predict(predict(spec("grey"), image=pixels))
    assert best(decode("probabilities", answer.outputs["probabilities"])) == [2, 2]


@pytest.mark.parametrize("name", ["image", "image_bytes"])
def test_encoded_pictures(stub: pb_grpc.PredictionServiceStub, name: str) -> None:
    answer = stub.Predict(predict(spec("grey"), **{name: strings(picture(250), picture(10))}))
    assert best(np.array(answer.outputs["probabilities"].float_val).reshape(2, 3)) == [2, 0]


def test_outputs_as_asked(stub: pb_grpc.PredictionServiceStub) -> None:
    pair = {name: encode(np.ones((1, 16), np.int32)) for name in ("INPUT0", "INPUT1")}
    assert {*stub.Predict(predict(spec("sum"), **pair)).outputs} == {"OUTPUT0", "OUTPUT1"}
    assert {*stub.Predict(predict(spec("sum"), "OUTPUT1", **pair)).outputs} == {"OUTPUT1"}


@pytest.mark.parametrize(("model", "version"), [(spec("grey", 1), 1), (spec("grey", version_label="latest"), 3)])
def test_versions(stub: pb_grpc.PredictionServiceStub, model: pb.ModelSpec, version: int) -> None:
    answer = stub.Predict(predict(model, image=strings(picture(250))))
    assert answer.model_spec.version.value == version


def test_classify(stub: pb_grpc.PredictionServiceStub) -> None:
    encoded = tf.Feature(bytes_list=tf.BytesList(value=[picture(250)]))
    pixels = tf.Feature(int64_list=tf.Int64List(value=[250] * 64))
    for name, feature in (("image/encoded", encoded), ("image", pixels)):
        examples = [tf.Example(features=tf.Features(feature={name: feature}))] * 2
        request = pb.ClassificationRequest(model_spec=spec("grey"))
        request.input.example_list.examples.extend(examples)
        rows = stub.Classify(request).result.classifications
        assert [[entry.label for entry in row.classes] for row in rows] == [[*LABELS]] * 2
        assert best([[entry.score for entry in row.classes] for row in rows]) == [2, 2]


def test_metadata(stub: pb_grpc.PredictionServiceStub) -> None:
    request = pb.GetModelMetadataRequest(model_spec=spec("grey", 1), metadata_field=["signature_def"])
    answer = stub.GetModelMetadata(request)
    signatures = pb.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert {*signatures.signature_def} == {"serving_default", "predict_images", "classify"}
    assert answer.model_spec.version.value == 1


def test_states(channel: grpc.Channel) -> None:
    models = pb_grpc.ModelServiceStub(channel)
    found = models.GetModelStatus(pb.GetModelStatusRequest(model_spec=spec("grey"))).model_version_status
    name = pb.ModelVersionStatus.State.Name
    assert [(state.version, name(state.state)) for state in found] == [(3, "AVAILABLE"), (2, "END"), (1, "AVAILABLE")]
    assert "bytes" in found[1].status.error_message
    (one,) = models.GetModelStatus(pb.GetModelStatusRequest(model_spec=spec("grey", 1))).model_version_status
    assert one == found[2]


SHORT = tf.TensorProto(dtype=tf.DT_INT8, tensor_shape=encode(np.zeros((1, 2), np.int8)).tensor_shape, int_val=[1, 2])


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (predict(spec("nothing")), CODE.NOT_FOUND, "nothing"),
        (predict(spec("grey", 9)), CODE.NOT_FOUND, "9"),
        (predict(spec("grey", 2)), CODE.UNAVAILABLE, "2"),
        (predict(spec("grey", 0)), CODE.INVALID_ARGUMENT, "a version above 0"),
        (predict(spec("grey", version_label="stable")), CODE.INVALID_ARGUMENT, "the label 'stable'"),
        (predict(spec("grey", signature_name="other")), CODE.INVALID_ARGUMENT, "predict_images here"),
        (predict(spec("sum")), CODE.INVALID_ARGUMENT, "expected the inputs"),
        (predict(spec("echo_INT8"), z=SHORT), CODE.INVALID_ARGUMENT, "received 'z'"),
        (predict(spec("echo_INT16"), x=SHORT), CODE.INVALID_ARGUMENT, "expected INT16 values"),
        (predict(spec("echo_INT8"), "w", x=SHORT), CODE.INVALID_ARGUMENT, "'w'"),
        (predict(spec("grey"), image=strings(b"no picture")), CODE.INVALID_ARGUMENT, "expected a JPEG, PNG"),
    ],
)
def test_requests_that_are_refused(
    stub: pb_grpc.PredictionServiceStub, request_: pb.PredictRequest, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(request_)
    assert raised.value.code() == code, raised.value.details()
    assert words in str(raised.value.details())


def test_what_is_not_served_says_so(channel: grpc.Channel, stub: pb_grpc.PredictionServiceStub) -> None:
    models = pb_grpc.ModelServiceStub(channel)
    calls: list[Callable[[], Any]] = [
        lambda: stub.Regress(pb.RegressionRequest()),
        lambda: stub.MultiInference(pb.MultiInferenceRequest()),
        lambda: models.HandleReloadConfigRequest(pb.ReloadConfigRequest()),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert raised.value.code() == CODE.UNIMPLEMENTED
        assert len(str(raised.value.details())) > 30


def test_states_and_metadata_of_what_is_not_there(channel: grpc.Channel, stub: pb_grpc.PredictionServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        pb_grpc.ModelServiceStub(channel).GetModelStatus(pb.GetModelStatusRequest(model_spec=spec("nothing")))
    assert raised.value.code() == CODE.NOT_FOUND
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetModelMetadata(pb.GetModelMetadataRequest(model_spec=spec("grey")))
    assert raised.value.code() == CODE.INVALID_ARGUMENT


def test_a_message_over_the_limit_is_refused(stub: pb_grpc.PredictionServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(predict(spec("echo_INT8"), x=encode(np.zeros((200_000, 2), np.int8))))
    assert raised.value.code() == CODE.RESOURCE_EXHAUSTED


def test_deadlines_and_request_ids(stub: pb_grpc.PredictionServiceStub) -> None:
    slow = predict(spec("slow"), image=encode(np.zeros((1, 8, 8, 1), np.uint8)))
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(slow, timeout=0.003)
    assert raised.value.code() in (CODE.DEADLINE_EXCEEDED, CODE.RESOURCE_EXHAUSTED)
    _, call = stub.Predict.with_call(slow, metadata=(("x-request-id", "mine"),))
    assert ("x-request-id", "mine") in [tuple(entry) for entry in call.trailing_metadata()]


def test_a_cancelled_call_leaves_the_server_well(stub: pb_grpc.PredictionServiceStub) -> None:
    slow = predict(spec("slow"), image=encode(np.zeros((1, 8, 8, 1), np.uint8)))
    for _ in range(20):
        stub.Predict.future(slow).cancel()
    assert stub.Predict(slow).model_spec.version.value == 1


def test_reflection_tells_of_both_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}
    assert services <= {*database.get_services()}
    file = database.FindFileContainingSymbol("tensorflow.serving.PredictionService")
    assert [method.name for method in file.service[0].method] == [
        "Classify",
        "Regress",
        "Predict",
        "MultiInference",
        "GetModelMetadata",
    ]
    assert database.FindFileContainingSymbol("tensorflow.TensorProto").package == "tensorflow"
    assert database.FindFileContainingSymbol("inference.GRPCInferenceService").package == "inference"
    with pytest.raises(KeyError):
        database.FindFileContainingSymbol("tensorflow.Nothing")
