"""TensorFlow Serving's protocol and KServe's V1, for the OpenAPI document."""

from typing import Final

from server.transports.codecs.tfserving import DEFAULT_SIGNATURE
from server.transports.codecs.tfserving_json import B64
from server.transports.openapi_parts import (
    JSON,
    SAMPLE_BYTES,
    STRING,
    Document,
    Operation,
    answer,
    array,
    json_answer,
    open_record,
    record,
    ref,
    table,
)
from server.transports.openapi_plain import INFER_ERRORS

TFSERVING: Final = "TensorFlow Serving, KServe V1"

_DIGITS: Final = {"type": "string", "pattern": "^-?[0-9]+$"}
_SHAPE: Final = record(
    ("dim",), dim=array(record(size=_DIGITS, name=STRING)), unknown_rank={"type": "boolean", "const": False}
)
_TENSOR: Final = record(name=STRING, dtype={"type": "string", "pattern": "^DT_"}, tensor_shape=_SHAPE)
_SIGNATURE: Final = record(inputs=table(_TENSOR), outputs=table(_TENSOR), method_name=STRING)
_STATES: Final = ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]

SCHEMAS: Final[dict[str, Document]] = {
    "TfError": record(error={"type": "string", "description": "What was expected and what was received."}),
    "TfModels": record(models=array(STRING, uniqueItems=True)),
    "TfStatus": record(
        name=STRING,
        ready={"type": "boolean", "description": "Whether it can answer: what KServe asks for."},
        model_version_status=array(
            record(
                version=_DIGITS,
                state={"type": "string", "enum": _STATES},
                status=record(error_code=STRING, error_message=STRING),
            ),
            minItems=1,
        ),
    ),
    "TfMetadata": record(
        model_spec=record(name=STRING, signature_name=STRING, version=_DIGITS),
        metadata=record(signature_def=record(signature_def=table(_SIGNATURE))),
    ),
    "TfPredictRequest": {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string", "description": f"{DEFAULT_SIGNATURE} where there is none."},
            "instances": array({"description": "A row, or its inputs by name."}, minItems=1),
            "inputs": {"description": "All rows of the only input, or of each input by name."},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "TfPredictResponse": {
        "type": "object",
        "properties": {"predictions": array({}), "outputs": {}},
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
        "additionalProperties": False,
    },
    "TfClassifyRequest": open_record(
        ("signature_name", "context"),
        signature_name=STRING,
        context={"type": "object", "description": "Features that all examples share."},
        examples=array({"type": "object", "description": "Features by name."}, minItems=1),
    ),
    "TfClassifyResponse": record(
        # `prefixItems` would say it better, but few tools know it.
        results=array(array(array({"type": ["string", "number"]}, minItems=2, maxItems=2)))
    ),
    "TfAlive": record(status={"const": "alive"}),
}

_MODEL_ERRORS: Final = (400, 404, 503)
_SENT: Final = ("X-Latency-Budget-Ms", "X-Request-Id", "Content-Encoding")
_PICTURE: Final = {B64: SAMPLE_BYTES}


def _body(name: str, example: Document) -> Document:
    return {"required": True, "content": {JSON: {"schema": ref(name), "example": example}}}


def _operation(answers: Document, *errors: int) -> Operation:
    return Operation(TFSERVING, {200: answers}, errors, "TfError")


MODELS: Final = _operation(json_answer("TfModels", "The models that can answer"))
STATUS: Final = _operation(json_answer("TfStatus", "Each version's state"), *_MODEL_ERRORS)
METADATA: Final = _operation(json_answer("TfMetadata", "Its signatures"), *_MODEL_ERRORS)
PREDICT: Final = Operation(
    TFSERVING,
    {200: json_answer("TfPredictResponse", "Rows where rows were sent, columns where columns were")},
    INFER_ERRORS,
    "TfError",
    _SENT,
    _body("TfPredictRequest", {"instances": [_PICTURE]}),
)
CLASSIFY: Final = Operation(
    TFSERVING,
    {200: json_answer("TfClassifyResponse", "Every class with its probability, for each example")},
    INFER_ERRORS,
    "TfError",
    _SENT,
    _body("TfClassifyRequest", {"examples": [{"image/encoded": _PICTURE}]}),
)
NOT_SERVED: Final = Operation(
    TFSERVING,
    {
        400: answer("It is not served", (JSON, ref("TfError"))),
        404: answer("No name of a model has that form", (JSON, ref("TfError"))),
    },
)
