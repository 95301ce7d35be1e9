"""What unmodified tensorflow-serving-api stubs are asked to do, with TensorFlow's own tensors, in their own process."""

import functools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np

# By name, because the environment that checks this project's types does not have their types.
tf: Any = import_module("tensorflow")
apis = functools.partial(import_module, package="tensorflow_serving.apis")
predict_pb2: Any = apis(".predict_pb2")
classification_pb2: Any = apis(".classification_pb2")
regression_pb2: Any = apis(".regression_pb2")
metadata_pb2: Any = apis(".get_model_metadata_pb2")
status_pb2: Any = apis(".get_model_status_pb2")
PredictionServiceStub: Any = apis(".prediction_service_pb2_grpc").PredictionServiceStub
ModelServiceStub: Any = apis(".model_service_pb2_grpc").ModelServiceStub

CHANNEL: list[grpc.Channel] = []
PICTURE: list[bytes] = []
NUMPY = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
NAMES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
# Every file of the published protocol that ours copies from.
PUBLISHED = (
    *("tensorflow.core.framework.tensor_pb2", "tensorflow.core.framework.tensor_shape_pb2"),
    *("tensorflow.core.framework.types_pb2", "tensorflow.core.example.example_pb2"),
    *("tensorflow.core.example.feature_pb2", "tensorflow.core.protobuf.meta_graph_pb2"),
    *(
        f"tensorflow_serving.apis.{name}_pb2"
        for name in (
            *("classification", "get_model_metadata", "get_model_status", "inference", "input", "model"),
            *("model_management", "model_service", "predict", "prediction_service", "regression", "status"),
        )
    ),
)
OURS = ("protos.tensorflow_pb2", "protos.tensorflow_serving_pb2")


def connect(grpc_address: str, picture_file: str) -> None:
    CHANNEL.append(grpc.insecure_channel(grpc_address))
    PICTURE.append(Path(picture_file).read_bytes())


def stub() -> Any:
    return PredictionServiceStub(CHANNEL[0])


def predict(model: str, **inputs: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call: Callable[..., Any], *given: Any) -> Any:
    try:
        call(*given)
    except grpc.RpcError as error:
        return error
    raise AssertionError("it was not refused")


def example(**features: Any) -> Any:
    return tf.train.Example(features=tf.train.Features(feature=features))


def check_every_dtype() -> None:
    for name in NUMPY:
        for array in (np.array([[0, 1], [1, 100]]), np.ones((3, 2)), np.array([[1, 1]])):
            sent = array.astype(name)
            answer = stub().Predict(predict(f"echo_{NAMES.get(name, name.upper())}", x=sent))
            back = tf.make_ndarray(answer.outputs["y"])
            assert back.dtype == sent.dtype, name
            assert np.array_equal(back, sent), name


def check_strings() -> None:
    sent = np.array([[b"", "é".encode()], [b"x" * 300, b"y"]], dtype=np.object_)
    back = tf.make_ndarray(stub().Predict(predict("echo_BYTES", x=sent)).outputs["y"])
    assert back.tolist() == sent.tolist()


def check_a_constant_is_sent_once() -> None:
    request = predict("grey")
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(250, dtype=tf.uint8, shape=[2, 8, 8, 1]))
    assert len(request.inputs["image"].int_val) == 1
    scores = tf.make_ndarray(stub().Predict(request).outputs["probabilities"])
    assert scores.argmax(axis=1).tolist() == [2, 2]


def check_float_val_is_what_tutorials_read() -> None:
    answer = stub().Predict(predict("grey", image=np.full((1, 8, 8, 1), 250, np.uint8)))
    assert int(np.argmax(answer.outputs["probabilities"].float_val)) == 2


def check_encoded_pictures() -> None:
    for name in ("image", "image_bytes"):
        request = predict("grey", **{name: PICTURE * 2})
        request.model_spec.signature_name = "predict_images"
        answer = stub().Predict(request)
        assert tf.make_ndarray(answer.outputs["probabilities"]).argmax(axis=1).tolist() == [2, 2]
        assert answer.model_spec.signature_name == "predict_images"


def check_output_filter_and_versions() -> None:
    request = predict("sum", INPUT0=np.ones((2, 16), np.int32), INPUT1=np.ones((2, 16), np.int32))
    request.output_filter.append("OUTPUT0")
    request.model_spec.version.value = 1
    answer = stub().Predict(request)
    assert list(answer.outputs) == ["OUTPUT0"]
    assert answer.model_spec.version.value == 1
    request.model_spec.version.value = 2
    assert refusal(stub().Predict, request).code() == grpc.StatusCode.NOT_FOUND
    request.model_spec.version_label = "latest"
    assert stub().Predict(request).model_spec.version.value == 1


def check_calls_at_once() -> None:
    pixels = np.full((1, 8, 8, 1), 250, np.uint8)
    calls = [stub().Predict.future(predict("grey", image=pixels), timeout=20) for _ in range(20)]
    assert {int(np.argmax(call.result().outputs["probabilities"].float_val)) for call in calls} == {2}


def check_classify() -> None:
    encoded = tf.train.Feature(bytes_list=tf.train.BytesList(value=PICTURE))
    pixels = tf.train.Feature(float_list=tf.train.FloatList(value=[0.98] * 64))
    for one in (example(**{"image/encoded": encoded}), example(image=pixels)):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "grey"
        request.input.example_list.examples.extend([one, one])
        rows = stub().Classify(request).result.classifications
        assert [max(row.classes, key=lambda entry: entry.score).label for row in rows] == ["bright", "bright"]


def check_metadata() -> None:
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "grey"
    signatures = metadata_pb2.SignatureDefMap()
    assert stub().GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    image = signatures.signature_def["serving_default"].inputs["image"]
    assert tf.dtypes.as_dtype(image.dtype) == tf.uint8
    assert tf.TensorShape(image.tensor_shape).as_list() == [None, 8, 8, 1]


def check_status() -> None:
    request = status_pb2.GetModelStatusRequest()
    request.model_spec.name = "grey"
    (state,) = ModelServiceStub(CHANNEL[0]).GetModelStatus(request).model_version_status
    assert (state.version, state.state, state.status.error_code) == (1, status_pb2.ModelVersionStatus.AVAILABLE, 0)
    request.model_spec.name = "nothing"
    error = refusal(ModelServiceStub(CHANNEL[0]).GetModelStatus, request)
    assert error.code() == grpc.StatusCode.NOT_FOUND


def check_refusals() -> None:
    assert refusal(stub().Predict, predict("nothing")).code() == grpc.StatusCode.NOT_FOUND
    error = refusal(stub().Predict, predict("grey", image=np.zeros((1, 8, 8, 1), np.float32)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected UINT8" in error.details()
    error = refusal(stub().Regress, regression_pb2.RegressionRequest())
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def check_our_copy_and_tensorflow_are_in_one_process() -> None:
    ours, theirs = import_module("protos.tensorflow_serving_pb2"), predict_pb2
    sent = ours.PredictRequest.FromString(predict("grey", x=[1.0]).SerializeToString())
    assert theirs.PredictRequest.FromString(sent.SerializeToString()) == predict("grey", x=[1.0])
    assert ours.PredictRequest.DESCRIPTOR.full_name == theirs.PredictRequest.DESCRIPTOR.full_name
    assert ours.PredictRequest.DESCRIPTOR is not theirs.PredictRequest.DESCRIPTOR


def numbers() -> Any:
    """The numbers of the published protocol, and of our copy."""
    numbers_of = import_module("v2_numbers").numbers_of
    return [
        functools.reduce(lambda found, name: found | numbers_of(import_module(name)), modules, {})
        for modules in (PUBLISHED, OURS)
    ]
