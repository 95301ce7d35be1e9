"""The Open Inference Protocol, for the OpenAPI document."""

from typing import Final

from server.tensors import DTYPES
from server.transports.codecs.v2 import PRIORITY_LEVELS
from server.transports.codecs.v2_describe import EXTENSIONS
from server.transports.openapi_parts import (
    BOOLEAN,
    BYTES,
    COUNT,
    INTEGERS,
    JSON,
    OCTETS,
    SAMPLE_BYTES,
    STRING,
    Document,
    Operation,
    answer,
    array,
    json_answer,
    json_body,
    open_record,
    record,
    ref,
    table,
)
from server.transports.openapi_plain import INFER_ERRORS
from server.transports.v2_settings import TRACE_DEFAULTS

V2: Final = "Open Inference Protocol"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
INPUT_NAME: Final = "{input}"  # where the name of a served model's input is filled in
_MAX_RATE: Final = (1 << 31) - 1

_DATATYPE: Final = {"type": "string", "enum": [*DTYPES]}
_PARAMETERS: Final = {"type": "object"}
_SHAPE: Final = array(COUNT)
_TENSOR_ABOUT: Final = record(name=STRING, datatype=_DATATYPE, shape=INTEGERS)
_DURATION: Final = record(count=COUNT, ns=COUNT)
_STATISTIC: Final = record(
    success=_DURATION,
    fail=_DURATION,
    queue=_DURATION,
    compute_input=_DURATION,
    compute_infer=_DURATION,
    compute_output=_DURATION,
    cache_hit=_DURATION,
    cache_miss=_DURATION,
)


def _one_or_list(value: Document) -> Document:
    """A setting's value as Triton's clients send it: alone, in a list, or nothing for back to the default."""
    return {"anyOf": [value, array(value, maxItems=1), {"type": "null"}]}


_NATURAL: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": _MAX_RATE},
        {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
    ]
}
_COUNT: Final = {
    "anyOf": [
        {"type": "integer", "minimum": -1, "maximum": _MAX_RATE},
        {"type": "string", "pattern": "^(-1|[0-9]{1,9})$"},
    ]
}
_TRACE_VALUES: Final[dict[str, Document]] = {
    "trace_level": {"type": "string", "enum": ["OFF", "TIMESTAMPS"]},
    "trace_rate": _NATURAL,
    "trace_count": _COUNT,
    "log_frequency": {"enum": ["0", 0]},
    "trace_file": {"const": ""},
    "trace_mode": {"const": "triton"},
}

SCHEMAS: Final[dict[str, Document]] = {
    "V2Error": record(error={"type": "string", "description": "What was expected and what was received."}),
    "V2Server": record(
        name=STRING, version=STRING, extensions=array({"type": "string", "enum": [*EXTENSIONS]}, uniqueItems=True)
    ),
    "V2Live": record(live={"const": True}),
    "V2Ready": record(ready=BOOLEAN),
    "V2ModelReady": record(name=STRING, ready={"const": True}),
    "V2Model": record(
        name=STRING,
        versions=array(STRING),
        platform=STRING,
        inputs=array(_TENSOR_ABOUT),
        outputs=array(_TENSOR_ABOUT),
    ),
    "V2Config": record(
        ("dynamic_batching",),
        name=STRING,
        platform=STRING,
        backend=STRING,
        version_policy={"type": "object"},
        max_batch_size=COUNT,
        input=array(record(("format",), name=STRING, data_type=STRING, dims=INTEGERS, format=STRING)),
        output=array(record(name=STRING, data_type=STRING, dims=INTEGERS)),
        instance_group=array(record(name=STRING, count=COUNT, kind=STRING)),
        default_model_filename=STRING,
        parameters=table(record(string_value=STRING)),
        dynamic_batching=record(priority_levels=COUNT, default_priority_level=COUNT),
    ),
    "V2Statistics": record(
        model_stats=array(
            record(
                name=STRING,
                version=STRING,
                last_inference=COUNT,
                inference_count=COUNT,
                execution_count=COUNT,
                inference_stats=_STATISTIC,
                batch_stats=array(
                    record(
                        batch_size=COUNT,
                        compute_input=_DURATION,
                        compute_infer=_DURATION,
                        compute_output=_DURATION,
                    )
                ),
            )
        )
    ),
    "V2Values": array(
        {"anyOf": [{"type": ["number", "string", "boolean"]}, ref("V2Values")]},
        description="A tensor's values, flat or nested as its shape is.",
    ),
    "V2InputTensor": open_record(
        ("parameters", "data"),
        name=STRING,
        datatype=_DATATYPE,
        shape=_SHAPE,
        data=ref("V2Values"),
        parameters={
            "type": "object",
            "properties": {
                "binary_data_size": {**COUNT, "description": "Bytes of this tensor behind the JSON, in place of data."},
                "content_type": {"type": "string", "description": "base64: BYTES elements are in base64."},
            },
            "not": {"required": ["shared_memory_region"]},
        },
    ),
    "V2WantedOutput": open_record(
        ("parameters",),
        name=STRING,
        parameters={
            "type": "object",
            "properties": {
                "classification": {**COUNT, "description": "The best so many classes as value:index:label."},
                "binary_data": {"type": ["boolean", "null"]},
            },
            "not": {"required": ["shared_memory_region"]},
        },
    ),
    "V2InferRequest": open_record(
        ("id", "parameters", "outputs"),
        id=STRING,
        parameters={
            "type": "object",
            "properties": {
                "priority": {**COUNT, "description": f"1 goes first, {PRIORITY_LEVELS} last, 0 is in the middle."},
                "timeout": {**COUNT, "description": "Microseconds until the answer is worth nothing."},
                "binary_data_output": {"type": ["boolean", "null"]},
            },
        },
        inputs=array(ref("V2InputTensor"), minItems=1),
        outputs=array(ref("V2WantedOutput")),
    ),
    "V2InferResponse": record(
        ("id",),
        model_name=STRING,
        model_version=STRING,
        id=STRING,
        outputs=array(
            record(
                ("data", "parameters"),
                name=STRING,
                datatype=_DATATYPE,
                shape=_SHAPE,
                data=array({"type": ["number", "string", "boolean", "null"]}),
                parameters=record(binary_data_size=COUNT),
            )
        ),
    ),
    "V2IndexRequest": open_record(("ready",), ready=BOOLEAN),
    "V2Index": array(
        record(
            name=STRING,
            version=STRING,
            state={"type": "string", "enum": ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]},
            reason=STRING,
        )
    ),
    "V2LoadRequest": open_record(
        ("parameters",),
        parameters={"type": "object", "properties": {"unload_dependents": {}}, "additionalProperties": False},
    ),
    "V2UnloadRequest": open_record(("parameters",), parameters=_PARAMETERS),
    "V2Done": record(),
    "V2Regions": array({}, maxItems=0),
    "V2TraceChanges": record(
        tuple(TRACE_DEFAULTS), **{key: _one_or_list(_TRACE_VALUES[key]) for key in TRACE_DEFAULTS}
    ),
    "V2TraceSettings": record(
        **{key: array(STRING) if key == "trace_level" else STRING for key in TRACE_DEFAULTS},
    ),
    "V2LogChanges": record(
        ("log_file", "log_format", "log_info", "log_warning", "log_error", "log_verbose_level"),
        log_file={"const": ""},
        log_format={"const": "ISO8601"},
        log_info=BOOLEAN,
        log_warning=BOOLEAN,
        log_error={"const": True},
        log_verbose_level={"type": "integer"},
    ),
    "V2LogSettings": record(
        log_file=STRING,
        log_format=STRING,
        log_info=BOOLEAN,
        log_warning=BOOLEAN,
        log_error=BOOLEAN,
        log_verbose_level=COUNT,
    ),
}

_INFER_BODY: Final[Document] = {
    "required": True,
    "description": (
        "Tensors as JSON; or JSON with tensors' bytes behind it, and its length in Inference-Header-Content-Length;"
        " or, with 0 there, nothing but one picture."
    ),
    "content": {
        JSON: {
            "schema": ref("V2InferRequest"),
            "examples": {
                "picture": {
                    "summary": "a picture in base64",
                    "value": {
                        "inputs": [
                            {
                                "name": INPUT_NAME,
                                "shape": [1],
                                "datatype": "BYTES",
                                "parameters": {"content_type": "base64"},
                                "data": [SAMPLE_BYTES],
                            }
                        ]
                    },
                }
            },
        },
        OCTETS: {"schema": BYTES},
    },
}


def _operation(
    answers: Document, *errors: int, parameters: tuple[str, ...] = (), body: Document | None = None
) -> Operation:
    return Operation(V2, {200: answers}, errors, "V2Error", parameters, body)


_BODY_ERRORS: Final = (400, 413, 415)
_MODEL_ERRORS: Final = (400, 404, 503)
_SETTING_ERRORS: Final = (*_BODY_ERRORS, 503)
_TRACE: Final = json_answer("V2TraceSettings", "The settings that hold")
_LOGS: Final = json_answer("V2LogSettings", "The settings that hold")
_ENCODING: Final = ("Content-Encoding",)

SERVER: Final = _operation(json_answer("V2Server", "The server"))
LIVE: Final = _operation(json_answer("V2Live", "It lives"))
READY: Final = Operation(
    V2,
    {
        200: json_answer("V2Ready", "Send it requests"),
        503: json_answer("V2Ready", "Send it none: no model is loaded yet, or it is stopping"),
    },
)
MODEL: Final = _operation(json_answer("V2Model", "What it takes and answers"), *_MODEL_ERRORS)
MODEL_READY: Final = _operation(json_answer("V2ModelReady", "It can answer"), *_MODEL_ERRORS)
CONFIG: Final = _operation(json_answer("V2Config", "How it is served"), *_MODEL_ERRORS)
STATISTICS: Final = _operation(json_answer("V2Statistics", "What was done, in this process"), *_MODEL_ERRORS)
INFER: Final = _operation(
    answer(
        "Tensors, as JSON or as bytes behind it",
        (JSON, ref("V2InferResponse")),
        (OCTETS, None),
        **{HEADER_LENGTH: {"schema": COUNT, "description": "Length of the JSON where bytes follow it."}},
    ),
    *INFER_ERRORS,
    parameters=(HEADER_LENGTH, "X-Latency-Budget-Ms", "X-Request-Id", "Content-Encoding"),
    body=_INFER_BODY,
)
INDEX: Final = _operation(
    json_answer("V2Index", "Every version of every model"),
    *_BODY_ERRORS,
    parameters=_ENCODING,
    body=json_body("V2IndexRequest", required=False, example={"ready": True}),
)
LOAD: Final = _operation(
    json_answer("V2Done", "It is loaded"),
    *(*_BODY_ERRORS, 404, 503),
    parameters=_ENCODING,
    body=json_body("V2LoadRequest", required=False),
)
UNLOAD: Final = _operation(
    json_answer("V2Done", "It is gone"),
    *(*_BODY_ERRORS, 404, 503),
    parameters=_ENCODING,
    body=json_body("V2UnloadRequest", required=False),
)
REGIONS: Final = _operation(json_answer("V2Regions", "Nothing is registered"))
REGION: Final = _operation(json_answer("V2Regions", "Never: nothing is registered"), 404)
GET_TRACE: Final = _operation(_TRACE)
GET_MODEL_TRACE: Final = _operation(_TRACE, 404)
SET_TRACE: Final = _operation(
    _TRACE,
    *_SETTING_ERRORS,
    parameters=_ENCODING,
    body=json_body("V2TraceChanges", required=False, example={"trace_rate": "1000"}),
)
SET_MODEL_TRACE: Final = _operation(
    _TRACE, *_SETTING_ERRORS, 404, parameters=_ENCODING, body=json_body("V2TraceChanges", required=False)
)
GET_LOGS: Final = _operation(_LOGS)
SET_LOGS: Final = _operation(
    _LOGS,
    *_SETTING_ERRORS,
    parameters=_ENCODING,
    body=json_body("V2LogChanges", required=False, example={"log_info": True}),
)
