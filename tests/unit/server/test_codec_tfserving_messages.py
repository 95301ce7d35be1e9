"""TensorFlow Serving's messages: requests, examples, signatures and states."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import tensorflow_pb2 as tf
from protos import tensorflow_serving_pb2 as pb
from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.images import ImageSpec
from server.shelf import VersionState
from server.tensors import InferRequest, TensorSpec
from server.transports.codecs.tfserving import TfRequest
from server.transports.codecs.tfserving_describe import (
    check_fields,
    describe_metadata,
    describe_status,
    spell_metadata,
    spell_status,
)
from server.transports.codecs.tfserving_messages import (
    Address,
    decode_classify,
    decode_predict,
    encode_classify,
    encode_predict,
    read_address,
)
from server.transports.codecs.tfserving_tensors import encode
from tests.unit.server.tfserving_models import PAIR, PICTURES, TABLE, TEXTS, answer, describe, texts


def feature(*values: Any) -> tf.Feature:
    if isinstance(values[0], bytes):
        return tf.Feature(bytes_list=tf.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.Feature(float_list=tf.FloatList(value=values))
    return tf.Feature(int64_list=tf.Int64List(value=values))


def example(**features: tf.Feature) -> tf.Example:
    named = {name.replace("__", "/"): value for name, value in features.items()}
    return tf.Example(features=tf.Features(feature=named))


def classify(model: ModelDescription, *examples: tf.Example) -> InferRequest:
    request = pb.ClassificationRequest(input=pb.Input(example_list=pb.ExampleList(examples=examples)))
    return decode_classify(request, model).infer


# ---- addresses and predictions ----


def test_addresses() -> None:
    spec = pb.ModelSpec(name="m")
    assert read_address(spec) == Address("m")
    spec.version.value = 4
    assert read_address(spec) == Address("m", 4)
    assert read_address(pb.ModelSpec(name="m", version_label="latest")) == Address("m", None, "latest")
    spec.version.value = 0
    with pytest.raises(InvalidInput, match="a version above 0, received 0"):
        read_address(spec)


def test_predict_there_and_back() -> None:
    message = pb.PredictRequest(output_filter=["y"])
    message.inputs["a"].CopyFrom(encode(np.array([[1, 2]], np.int8)))
    message.inputs["b"].CopyFrom(encode(np.array([True])))
    request = decode_predict(message, PAIR)
    assert {name: array.tolist() for name, array in request.infer.inputs.items()} == {"a": [[1, 2]], "b": [True]}
    assert request.infer.outputs == ("y",)
    told = encode_predict(answer(y=np.array([[0.5, 1]], np.float32)), request)
    assert (told.model_spec.name, told.model_spec.version.value) == ("m", 3)
    assert told.model_spec.signature_name == "serving_default"
    assert list(told.outputs["y"].float_val) == [0.5, 1]


def test_pictures_by_either_name() -> None:
    for name, signature in (("image", ""), ("image_bytes", ""), ("image_bytes", "predict_images")):
        message = pb.PredictRequest(model_spec=pb.ModelSpec(signature_name=signature))
        message.inputs[name].CopyFrom(encode(texts(b"a", b"b")))
        request = decode_predict(message, PICTURES)
        assert request.infer.inputs["image"].tolist() == [b"a", b"b"]
        assert request.signature == (signature or "serving_default")
    message.inputs["image"].CopyFrom(encode(texts(b"a")))
    with pytest.raises(InvalidInput, match="which are the same"):
        decode_predict(message, PICTURES)


def test_a_signature_or_an_input_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match="the signatures serving_default here, received 'other'"):
        decode_predict(pb.PredictRequest(model_spec=pb.ModelSpec(signature_name="other")), TABLE)
    message = pb.PredictRequest()
    message.inputs["image_bytes"].CopyFrom(encode(texts(b"a")))
    with pytest.raises(InvalidInput, match=r"expected the inputs 'x' FP32\[-1, 2\] of 'm', received 'image_bytes'"):
        decode_predict(message, TABLE)


# ---- examples ----


def test_examples_of_pictures() -> None:
    for name in ("image__encoded", "image_bytes", "image"):
        assert classify(PICTURES, *[example(**{name: feature(b"a picture")})] * 2).images == (b"a picture",) * 2


@pytest.mark.parametrize(
    ("given_", "scale"),
    [
        ({"image": feature(1, 2, 3, 255)}, "0-255"),
        ({"image_raw": feature(b"\1\2\3\xff")}, "0-255"),
        ({"image": feature(0.0, 0.25, 0.5, 1.0)}, "0-1"),
    ],
)
def test_examples_of_pixels(given_: dict[str, tf.Feature], scale: str) -> None:
    numbers = classify(PICTURES, example(**given_), example(**given_)).numbers
    assert numbers is not None
    assert (numbers.values.shape, numbers.scale) == ((2, 4), scale)
    assert numbers.values[0].tolist() == numbers.values[1].tolist()
    assert numbers.values[0, 3] == (255 if scale == "0-255" else 1)


def test_examples_of_features_and_a_context() -> None:
    request = pb.ClassificationRequest()
    shared = request.input.example_list_with_context
    shared.context.CopyFrom(example(a=feature(5, 6)))
    shared.examples.extend([example(b=feature(1)), example(b=feature(0), a=feature(7, 8))])
    model = describe(TensorSpec("a", "FP64", (-1, 2)), TensorSpec("b", "INT32", (-1,)))
    inputs = decode_classify(request, model).infer.inputs
    assert (inputs["a"].tolist(), inputs["b"].tolist()) == ([[5, 6], [7, 8]], [1, 0])
    assert classify(TEXTS, example(x=feature(b"a"))).inputs["x"].tolist() == [b"a"]


@pytest.mark.parametrize(
    ("model", "examples", "message"),
    [
        (TABLE, [], "at least one example"),
        (TABLE, [example(z=feature(1))], "expected 2 FP32 values in the feature 'x' of example 0, received none"),
        (TABLE, [example(x=tf.Feature())], "received 0"),
        (TABLE, [example(x=feature(1, 2)), example(x=feature(1))], "of example 1"),
        (TABLE, [example(x=feature(b"a", b"b"))], "received 2 (b'a', …)"),
        (describe(TensorSpec("x", "INT8", (-1, 1))), [example(x=feature(0.5))], "expected 1 INT8 values"),
        (describe(TensorSpec("x", "INT8", (-1, 1))), [example(x=feature(128))], "fit INT8"),
        (describe(TensorSpec("x", "INT8", (-1, -1))), [example(x=feature(1))], "use Predict"),
        (describe(TensorSpec("x", "INT8", (2, 1))), [example(x=feature(1))], "use Predict"),
        (PICTURES, [example()], "one of the features image/encoded, image_bytes, image_raw, image in example 0"),
        (PICTURES, [example(image=feature(b"a"), image_raw=feature(b"a"))], "received image"),
        (PICTURES, [example(image=feature(b"a", b"b"))], "one picture in 'image' of example 0, received 2"),
        (PICTURES, [example(image_raw=feature(1))], "expected bytes in 'image_raw'"),
        (PICTURES, [example(image=feature(1, 2, 3))], "expected 4 pixels"),
        (PICTURES, [example(image=tf.Feature())], "expected 4 pixels"),
        (PICTURES, [example(image=feature(b"a")), example(image=feature(1, 2, 3, 4))], "in one form"),
        (PICTURES, [example(image=feature(1, 2, 3, 4)), example(image=feature(0.1, 0.2, 0.3, 0.4))], "in one form"),
    ],
)
def test_examples_that_are_refused(model: ModelDescription, examples: list[tf.Example], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        classify(model, *examples)
    assert message in str(raised.value)


def test_classes_are_told_in_the_models_order() -> None:
    told = encode_classify(
        answer(y=np.array([[0.25, 0.75], [1, 0]], np.float32)), TfRequest(InferRequest(), "classify")
    )
    assert [[(c.label, c.score) for c in row.classes] for row in told.result.classifications] == [
        [("low", 0.25), ("high", 0.75)],
        [("low", 1), ("high", 0)],
    ]
    assert told.model_spec.signature_name == "classify"
    with pytest.raises(InvalidInput, match="expected a classifier"):
        encode_classify(answer(z=texts(b"a")), TfRequest(InferRequest()))


features = st.one_of(
    st.just(tf.Feature()),
    st.lists(st.binary(max_size=4), max_size=5).map(lambda value: tf.Feature(bytes_list=tf.BytesList(value=value))),
    st.lists(st.floats(width=32), max_size=5).map(lambda value: tf.Feature(float_list=tf.FloatList(value=value))),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(
        lambda value: tf.Feature(int64_list=tf.Int64List(value=value))
    ),
)
names = st.sampled_from(["x", "a", "b", "image", "image_bytes", "image/encoded", "image_raw"])
examples_ = st.lists(st.dictionaries(names, features, max_size=2), max_size=3).map(
    lambda found: [tf.Example(features=tf.Features(feature=named)) for named in found]
)


@given(examples_, st.sampled_from([TABLE, TEXTS, PAIR, PICTURES]))
def test_any_examples_are_read_or_refused(found: list[tf.Example], model: ModelDescription) -> None:
    try:
        infer = classify(model, *found)
    except InvalidInput:
        return
    assert (len(infer.images) or infer.numbers is not None or len(infer.inputs)) > 0


# ---- what is told of models ----


def test_signatures_of_a_classifier_of_pictures() -> None:
    signatures = pb.SignatureDefMap()
    assert describe_metadata(PICTURES).metadata["signature_def"].Unpack(signatures)
    found = signatures.signature_def
    assert {name: signature.method_name for name, signature in found.items()} == {
        "serving_default": "tensorflow/serving/predict",
        "predict_images": "tensorflow/serving/predict",
        "classify": "tensorflow/serving/classify",
    }
    pixels = found["serving_default"].inputs["image"]
    assert (pixels.dtype, [dim.size for dim in pixels.tensor_shape.dim]) == (tf.DT_UINT8, [-1, 2, 2, 1])
    assert found["predict_images"].inputs["image_bytes"].dtype == tf.DT_STRING
    assert found["serving_default"].outputs["y"].dtype == tf.DT_FLOAT


def test_signatures_as_json() -> None:
    model = describe(TensorSpec("x", "INT64", (2,)), outputs=(TensorSpec("y", "INT64", (2,)),))
    shape = {"dim": [{"size": "2", "name": ""}], "unknown_rank": False}
    tensor = {"dtype": "DT_INT64", "tensor_shape": shape}
    assert spell_metadata(model) == {
        "model_spec": {"name": "m", "signature_name": "", "version": "3"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"x": tensor | {"name": "x:0"}},
                        "outputs": {"y": tensor | {"name": "y:0"}},
                        "method_name": "tensorflow/serving/predict",
                    }
                }
            }
        },
    }


@pytest.mark.parametrize("fields", [[], ["signature_def", "more"], ["other"]])
def test_other_metadata_are_not_told(fields: list[str]) -> None:
    check_fields(["signature_def"])
    with pytest.raises(InvalidInput, match="expected the metadata_field 'signature_def'"):
        check_fields(fields)


def test_states() -> None:
    states = [
        VersionState("m", 1, "unloaded", "not wanted"),
        VersionState("m", 2, "failed", "damaged"),
        VersionState("m", 3, "ready", "stands by"),
        VersionState("m", 4, "loading"),
        VersionState("m", 5, "draining"),
    ]
    told = describe_status(states).model_version_status
    name = pb.ModelVersionStatus.State.Name
    assert [(status.version, name(status.state)) for status in told] == [
        (5, "UNLOADING"),
        (4, "LOADING"),
        (3, "AVAILABLE"),
        (2, "END"),
        (1, "END"),
    ]
    document = spell_status("m", states, ready=True)
    assert (document["name"], document["ready"]) == ("m", True)
    assert [entry["status"] for entry in document["model_version_status"]][1:4] == [
        {"error_code": "OK", "error_message": ""},
        {"error_code": "OK", "error_message": ""},
        {"error_code": "FAILED_PRECONDITION", "error_message": "damaged"},
    ]


def test_an_image_models_other_inputs_take_no_pictures() -> None:
    model = describe(
        TensorSpec("n", "INT8", (-1,)), TensorSpec("image", "UINT8", (-1, 2, 2, 1)), image=ImageSpec(2, 2, 1)
    )
    message = pb.PredictRequest()
    message.inputs["image_bytes"].CopyFrom(encode(texts(b"a")))
    assert [*decode_predict(message, model).infer.inputs] == ["image"]
