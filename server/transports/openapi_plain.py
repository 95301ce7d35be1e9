"""The plain interface, the page and the server's own routes, for the OpenAPI document."""

from typing import Final, get_args

from server.explanation import METHOD
from server.shelf import State
from server.tensors import DTYPES
from server.transports.codecs.plain import MAX_TOP_K
from server.transports.openapi_parts import (
    BOOLEAN,
    BYTES,
    COUNT,
    INTEGERS,
    JSON,
    NUMBER,
    OCTETS,
    SAMPLE_BYTES,
    STRING,
    Document,
    Operation,
    answer,
    array,
    json_answer,
    record,
    ref,
    table,
)

PLAIN: Final = "Plain interface"
SERVER: Final = "Server"
PAGE: Final = "Pages"
IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "image/tiff")
NOT_MODIFIED: Final = {
    304: answer("The caller's copy is still right"),
    412: answer("A condition of the request does not hold"),
}
INFER_ERRORS: Final = (400, 404, 413, 415, 429, 500, 503, 504)

_OPTIONAL_STRING: Final = {"type": ["string", "null"]}
_TENSOR: Final = record(
    name=STRING, datatype={"type": "string", "enum": [*DTYPES]}, shape=array({"type": "integer", "minimum": -1})
)
_VARIANT: Final = record(name=STRING, accuracy=NUMBER, agreement=NUMBER, size_bytes=COUNT, images_per_s=NUMBER)
_PREPROCESSING: Final = record(
    height_px=COUNT, width_px=COUNT, channels=COUNT, resize=STRING, scale=NUMBER, offset=NUMBER
)
_OF_A_MANIFEST: Final = (
    "architecture",
    "framework",
    "parameters",
    "created_at",
    "metrics",
    "variants",
    "preprocessing",
    "training",
    "dataset",
    "explanation",
)
_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_SIDE: Final = {"type": "integer", "minimum": -1, "description": "In places; -1 where it depends on the picture."}


_CLASS: Final[Document] = {
    "anyOf": [STRING, COUNT],
    "description": "A label, or a class's number; without one the most probable class.",
}


def _nested(depth: int) -> Document:
    """Lists of numbers, up to `depth` deep."""
    return array(NUMBER if depth == 1 else {"anyOf": [NUMBER, _nested(depth - 1)]}, minItems=1)


SCHEMAS: Final[dict[str, Document]] = {
    "Problem": record(
        type={"type": "string", "pattern": "^urn:shoal:[a-z-]+$", "description": "What kind of error; stable."},
        title={"type": "string", "description": "The kind in words."},
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail={"type": "string", "description": "What was expected, what was received, what to do."},
        request_id={"type": "string", "description": "The name of the request, which the server's log has too."},
    )
    | {"description": "An error, as RFC 9457 has it."},
    "Health": record(
        status={"type": "string", "enum": ["ok", "loading", "draining"]},
        model_loaded=BOOLEAN,
        model=_OPTIONAL_STRING,
        version={"type": ["integer", "null"]},
        uptime_s=NUMBER,
        shoal_version=STRING,
    ),
    "Live": record(status={"const": "alive"}, uptime_s=NUMBER),
    "Routes": record(routes=array(record(method=STRING, path=STRING, summary=STRING))),
    "ModelInfo": record(
        _OF_A_MANIFEST,
        name=STRING,
        version=COUNT,
        variant=STRING,
        providers=array(STRING),
        labels=array(STRING),
        input_shape=INTEGERS,
        output_shape=INTEGERS,
        inputs=array(_TENSOR),
        outputs=array(_TENSOR),
        batch_cost_ms=table(NUMBER),
        architecture=STRING,
        framework=STRING,
        parameters=COUNT,
        created_at=STRING,
        metrics=table(NUMBER),
        variants=array(_VARIANT),
        preprocessing=_PREPROCESSING,
        training=record(run=STRING, epochs=COUNT, seed={"type": "integer"}),
        dataset=record(source=STRING, rows=table(COUNT)),
        explanation={
            "anyOf": [record(method={"const": METHOD}, height=_SIDE, width=_SIDE), {"type": "null"}],
            "description": "What /explain answers for it; null where it has no class-activation map.",
        },
        versions=array(
            record(name=STRING, version=COUNT, state={"type": "string", "enum": [*get_args(State)]}, reason=STRING)
        ),
    )
    | {"description": "A model without a manifest has none of what export measured."},
    "PredictRequest": record(
        ("data", "images", "scale", "top_k"),
        data=_nested(4)
        | {
            "description": "Numbers: one picture, flat or nested, or a list of such pictures, in the shape that"
            " /model-info names as input_shape. Every list of one depth has the same length."
        },
        images=array(
            {"type": "string", "minLength": 1, "contentEncoding": "base64"},
            minItems=1,
            description="Encoded pictures in base64, with or without a data: prefix.",
        ),
        scale={
            "type": "string",
            "enum": ["0-255", "0-1"],
            "description": "The numbers' range; needed only where they do not tell it themselves.",
        },
        top_k={"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "description": 'How many classes "top" lists.'},
    )
    | {"oneOf": [{"required": ["data"]}, {"required": ["images"]}]},
    "PredictForm": {
        "type": "object",
        "properties": {
            "file": {
                "description": "One picture or several; every field that is a file is taken, whatever its name.",
                "anyOf": [BYTES, array(BYTES, minItems=1)],
            },
            "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
        },
        "required": ["file"],
    },
    "Predictions": record(
        ("top",),
        predictions=array(COUNT, description="The most probable class of each picture."),
        labels=array(STRING, description="Their names."),
        confidence=array(NUMBER, description="Their probabilities."),
        probabilities=array(array(NUMBER), description="Of every class, for each picture."),
        model=STRING,
        version=COUNT,
        variant=STRING,
        request_id=STRING,
        top=array(
            array(record(**{"class": COUNT, "label": STRING, "probability": NUMBER})),
            description="With top_k: the best classes of each picture, best first.",
        ),
    ),
    "ExplainRequest": record(
        ("class",),
        images=array(
            {"type": "string", "minLength": 1, "contentEncoding": "base64"},
            minItems=1,
            maxItems=1,
            description="One encoded picture in base64, with or without a data: prefix.",
        ),
        **{"class": _CLASS},
    ),
    "ExplainForm": {
        "type": "object",
        "properties": {"file": BYTES | {"description": "One picture."}, "class": STRING},
        "required": ["file"],
    },
    "Explanation": record(
        label=STRING,
        probability=_SHARE | {"description": "Of the class, by the float32 graph that the map is of."},
        method={"const": METHOD},
        height=COUNT,
        width=COUNT,
        map=array(
            array(_SHARE),
            description=(
                "By row, from the top left, over the whole picture: what each place says for the class before the"
                " softmax (the dense layer applied there; Zhou et al., CVPR 2016), what is below 0 set to 0, then"
                " scaled so that the least is 0 and the most 1. All 0 where no place stands out."
            ),
        ),
        model=STRING,
        version=COUNT,
        request_id=STRING,
        **{"class": COUNT},
    ),
}

_PREDICT_BODY: Final[Document] = {
    "required": True,
    "description": (
        "Pictures or numbers. What a picture is shows in its bytes, so a wrong Content-Type does no harm."
        " Any of these may be compressed, which Content-Encoding names."
    ),
    "content": {
        JSON: {
            "schema": ref("PredictRequest"),
            "examples": {
                "picture": {"summary": "a picture in base64", "value": {"images": [SAMPLE_BYTES], "top_k": 2}}
            },
        },
        "multipart/form-data": {
            "schema": ref("PredictForm"),
            "encoding": {"file": {"contentType": ", ".join((*IMAGE_TYPES, OCTETS))}},
        },
        **{kind: {"schema": BYTES} for kind in (*IMAGE_TYPES, OCTETS)},
    },
}

HEALTH: Final = Operation(
    SERVER,
    {
        200: json_answer("Health", "Send it requests"),
        503: json_answer("Health", "Send it none: no model is loaded yet, or it is stopping"),
    },
)
LIVE: Final = Operation(SERVER, {200: json_answer("Live", "It lives")})
ROUTES: Final = Operation(SERVER, {200: json_answer("Routes", "Every route")})
METRICS: Final = Operation(SERVER, {200: answer("Prometheus's text form, 0.0.4", ("text/plain", STRING))}, (500,))
MODEL_INFO: Final = Operation(
    PLAIN, {200: json_answer("ModelInfo", "The model")}, (400, 404, 503), parameters=("model", "version")
)
EXAMPLE: Final = Operation(
    PLAIN,
    {200: answer("The picture's file, as it was when the model was exported", (OCTETS, None))},
    (400, 404, 503),
    parameters=("model", "version", "number"),
)
PREDICT: Final = Operation(
    PLAIN,
    {200: json_answer("Predictions", "One entry for each picture, in the order they were sent")},
    INFER_ERRORS,
    parameters=("model", "version", "top_k", "X-Latency-Budget-Ms", "X-Request-Id", "Content-Encoding"),
    body=_PREDICT_BODY,
)
EXPLAIN: Final = Operation(
    PLAIN,
    {200: json_answer("Explanation", "The map of one class over the picture")},
    INFER_ERRORS,
    parameters=("model", "version", "class", "X-Latency-Budget-Ms", "X-Request-Id", "Content-Encoding"),
    body={
        "required": True,
        "description": "One picture, in the forms that /predict takes.",
        "content": {
            JSON: {
                "schema": ref("ExplainRequest"),
                "examples": {
                    "picture": {"summary": "a picture in base64", "value": {"images": [SAMPLE_BYTES], "class": 0}}
                },
            },
            "multipart/form-data": {
                "schema": ref("ExplainForm"),
                "encoding": {"file": {"contentType": ", ".join((*IMAGE_TYPES, OCTETS))}},
            },
            **{kind: {"schema": BYTES} for kind in (*IMAGE_TYPES, OCTETS)},
        },
    },
    description=(
        "Only for models whose network ends in global average pooling and one dense layer; /model-info says so under"
        " `explanation`, and a model without one is answered 404 `no-activation-map`. Without X-Latency-Budget-Ms it"
        " takes as long as it takes."
    ),
)
HOME: Final = Operation(
    PAGE,
    {
        200: answer(
            "The page; or, where the Accept header is */*, that the server lives, which KServe's clients ask for here",
            ("text/html", STRING),
            (JSON, ref("TfAlive")),
        ),
        **NOT_MODIFIED,
    },
)
HTML: Final = Operation(PAGE, {200: answer("The page", ("text/html", STRING)), **NOT_MODIFIED})
DOCUMENT: Final = Operation(
    SERVER,
    {200: answer("An OpenAPI 3.1 document", (JSON, {"type": "object"})), 304: answer("The caller's copy is right")},
)
ASSET: Final = Operation(
    PAGE,
    {
        200: answer(
            "The file", *((kind, STRING) for kind in ("text/css", "text/html", "text/javascript", "image/svg+xml"))
        ),
        **NOT_MODIFIED,
    },
    (404,),
)
