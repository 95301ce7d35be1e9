"""What TensorFlow Serving's protocol tells of models: signatures and the state of versions, as messages and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf import json_format

from protos import tensorflow_error_pb2 as codes
from protos import tensorflow_pb2 as tf
from protos import tensorflow_serving_pb2 as pb
from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.shelf import VersionState
from server.tensors import TensorSpec
from server.transports.codecs.tfserving import (
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    IMAGE_BYTES,
    IMAGES_SIGNATURE,
)
from server.transports.codecs.tfserving_tensors import BY_DATATYPE

SIGNATURE_FIELD: Final = "signature_def"
PREDICT_METHOD: Final = "tensorflow/serving/predict"
CLASSIFY_METHOD: Final = "tensorflow/serving/classify"
_CLASSES_NDIM: Final = 2
_STATES: Final = {
    "ready": pb.ModelVersionStatus.AVAILABLE,
    "loading": pb.ModelVersionStatus.LOADING,
    "draining": pb.ModelVersionStatus.UNLOADING,
}


def describe_signatures(model: ModelDescription) -> pb.SignatureDefMap:
    """A model's signatures.

    Args:
        model: The version that would answer.
    """
    outputs = {spec.name: _describe(spec) for spec in model.outputs}
    inputs = {spec.name: _describe(spec) for spec in model.inputs}
    signatures = {DEFAULT_SIGNATURE: tf.SignatureDef(inputs=inputs, outputs=outputs, method_name=PREDICT_METHOD)}
    if model.image is not None:
        encoded = {IMAGE_BYTES: _describe(TensorSpec(IMAGE_BYTES, "BYTES", (-1,)))}
        signatures[IMAGES_SIGNATURE] = tf.SignatureDef(inputs=encoded, outputs=outputs, method_name=PREDICT_METHOD)
    if _classifies(model.outputs):
        signatures[CLASSIFY_SIGNATURE] = tf.SignatureDef(
            inputs={"inputs": _describe(TensorSpec("inputs", "BYTES", (-1,)))},
            outputs={
                "classes": _describe(TensorSpec("classes", "BYTES", (-1, -1))),
                "scores": _describe(TensorSpec("scores", "FP32", (-1, -1))),
            },
            method_name=CLASSIFY_METHOD,
        )
    return pb.SignatureDefMap(signature_def=signatures)


def describe_metadata(model: ModelDescription) -> pb.GetModelMetadataResponse:
    """A model's metadata.

    Args:
        model: The version that would answer.
    """
    answer = pb.GetModelMetadataResponse(model_spec=_spec(model))
    answer.metadata[SIGNATURE_FIELD].Pack(describe_signatures(model))
    return answer


def spell_metadata(model: ModelDescription) -> dict[str, Any]:
    """The same as JSON, in TensorFlow Serving's form of it.

    Args:
        model: The version that would answer.
    """
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {SIGNATURE_FIELD: _to_dict(describe_signatures(model))},
    }


def check_fields(fields: Iterable[str]) -> None:
    """Checks which metadata are asked for.

    Args:
        fields: Their names.

    Raises:
        InvalidInput: There is none, or one that is not told.
    """
    if {*fields} != {SIGNATURE_FIELD}:
        received = ", ".join(fields)[:80] or "none"
        raise InvalidInput(f"expected the metadata_field '{SIGNATURE_FIELD}', received {received}")


def describe_status(states: Sequence[VersionState]) -> pb.GetModelStatusResponse:
    """The state of a model's versions, the newest first.

    Args:
        states: Of each.
    """
    newest_first = sorted(states, key=lambda state: state.version, reverse=True)
    return pb.GetModelStatusResponse(model_version_status=[_describe_state(state) for state in newest_first])


def spell_status(name: str, states: Sequence[VersionState], *, ready: bool) -> dict[str, Any]:
    """The same as JSON, with what KServe's V1 protocol wants to know.

    Args:
        name: The model's.
        states: Of each version.
        ready: Whether it can answer.
    """
    return {"name": name, "ready": ready, **_to_dict(describe_status(states))}


def _spec(model: ModelDescription) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=model.name)
    spec.version.value = model.version
    return spec


def _describe(spec: TensorSpec) -> tf.TensorInfo:
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in spec.shape])
    return tf.TensorInfo(name=f"{spec.name}:0", dtype=BY_DATATYPE[spec.datatype].number, tensor_shape=shape)


def _classifies(outputs: Sequence[TensorSpec]) -> bool:
    return bool(outputs) and outputs[0].datatype.startswith("FP") and len(outputs[0].shape) == _CLASSES_NDIM


def _describe_state(state: VersionState) -> pb.ModelVersionStatus:
    failed = state.state == "failed"
    status = pb.StatusProto(
        error_code=codes.FAILED_PRECONDITION if failed else codes.OK, error_message=state.reason if failed else ""
    )
    return pb.ModelVersionStatus(
        version=state.version, state=_STATES.get(state.state, pb.ModelVersionStatus.END), status=status
    )


def _to_dict(message: Any) -> dict[str, Any]:
    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document
