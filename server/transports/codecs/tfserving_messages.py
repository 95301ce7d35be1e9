"""TensorFlow Serving over gRPC: messages to requests and back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from protos import tensorflow_pb2 as tf
from protos import tensorflow_serving_pb2 as pb
from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.tensors import InferRequest, InferResponse
from server.transports.codecs.tfserving import (
    TfRequest,
    choose_signature,
    classify_signatures,
    predict_signatures,
    read_scores,
    rename_inputs,
)
from server.transports.codecs.tfserving_examples import decode_examples
from server.transports.codecs.tfserving_tensors import decode, encode


class Address(NamedTuple):
    """The model that a request is for.

    Args:
        name: Its name; empty for the default one.
        version: Its version, or None.
        label: Its version's label; empty where it goes by the number or by none.
    """

    name: str
    version: int | None = None
    label: str = ""


def read_address(spec: pb.ModelSpec) -> Address:
    """Reads which model a request is for.

    Args:
        spec: As it came.

    Raises:
        InvalidInput: The version is no number above 0.
    """
    if spec.WhichOneof("version_choice") != "version":
        return Address(spec.name, label=spec.version_label)
    version = spec.version.value
    if version <= 0:
        raise InvalidInput(f"expected a version above 0, received {version}")
    return Address(spec.name, version)


def decode_predict(message: pb.PredictRequest, model: ModelDescription) -> TfRequest:
    """Reads a Predict request.

    Args:
        message: As it came.
        model: The version that will answer.

    Raises:
        InvalidInput: Its tensors, their names or its signature are not the model's.
    """
    signature = choose_signature(message.model_spec.signature_name, predict_signatures(model))
    inputs = {name: decode(name, tensor) for name, tensor in message.inputs.items()}
    infer = InferRequest(inputs=rename_inputs(inputs, model), outputs=tuple(message.output_filter))
    return TfRequest(infer, signature)


def encode_predict(response: InferResponse, request: TfRequest) -> pb.PredictResponse:
    """Writes the answer of Predict.

    Args:
        response: What the service answered.
        request: What was asked.
    """
    answer = pb.PredictResponse(model_spec=answered_by(response, request))
    for name, array in response.outputs.items():
        answer.outputs[name].CopyFrom(encode(array))
    return answer


def decode_classify(message: pb.ClassificationRequest, model: ModelDescription) -> TfRequest:
    """Reads a Classify request.

    Args:
        message: As it came.
        model: The version that will answer.

    Raises:
        InvalidInput: Its examples or its signature are not the model's.
    """
    signature = choose_signature(message.model_spec.signature_name, classify_signatures())
    if message.input.WhichOneof("kind") == "example_list_with_context":
        examples, context = message.input.example_list_with_context.examples, message.input.example_list_with_context
        shared = _read_features(context.context)
    else:
        examples, shared = message.input.example_list.examples, {}
    return TfRequest(decode_examples([shared | _read_features(example) for example in examples], model), signature)


def encode_classify(response: InferResponse, request: TfRequest) -> pb.ClassificationResponse:
    """Writes the answer of Classify.

    Args:
        response: What the service answered.
        request: What was asked.

    Raises:
        InvalidInput: The model is no classifier.
    """
    rows = [
        pb.Classifications(classes=[pb.Class(label=label, score=score) for label, score in scores])
        for scores in read_scores(response)
    ]
    result = pb.ClassificationResult(classifications=rows)
    return pb.ClassificationResponse(model_spec=answered_by(response, request), result=result)


def answered_by(response: InferResponse, request: TfRequest) -> pb.ModelSpec:
    """The model that answered, as the protocol tells it.

    Args:
        response: Its answer.
        request: What was asked.
    """
    spec = pb.ModelSpec(name=response.model, signature_name=request.signature)
    spec.version.value = response.version
    return spec


def _read_features(example: tf.Example) -> dict[str, Any]:
    features: Mapping[str, tf.Feature] = example.features.feature
    return {name: _read_feature(feature) for name, feature in features.items()}


def _read_feature(feature: tf.Feature) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind is not None else []
