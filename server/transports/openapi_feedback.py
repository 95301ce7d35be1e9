"""Feedback, for the OpenAPI document."""

from typing import Final

from server.transports.codecs.feedback import MAX_CLASS, MAX_ITEMS, MAX_LABEL, MAX_POSITION
from server.transports.openapi_parts import COUNT, JSON, STRING, Document, Operation, array, json_answer, record, ref

_POSITION: Final[Document] = {
    "type": "integer",
    "minimum": 0,
    "maximum": MAX_POSITION,
    "description": "Which picture of the request, from 0.",
}
_LABEL: Final[Document] = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
        {"type": "integer", "minimum": 0, "maximum": MAX_CLASS},
    ],
    "description": "The right class of the model that answered: its name, or its number.",
}

SCHEMAS: Final[dict[str, Document]] = {
    "FeedbackItem": record(
        ("position",),
        request_id={
            "type": "string",
            "pattern": "^[A-Za-z0-9._~:/+=@-]{1,128}$",
            "description": "As the prediction's X-Request-Id had it.",
        },
        label=_LABEL,
        position=_POSITION,
    ),
    "Feedback": {
        "anyOf": [ref("FeedbackItem"), array(ref("FeedbackItem"), minItems=1, maxItems=MAX_ITEMS)],
    },
    "FeedbackTaken": record(
        accepted=COUNT | {"description": "How many were written; the last word on a picture replaces those before."},
        correct=COUNT | {"description": "Of these, how many had been answered rightly."},
        unknown=array(
            record(request_id=STRING, position=COUNT), description="Those whose prediction is not in the log."
        ),
    ),
}

FEEDBACK: Final = Operation(
    "Plain interface",
    {200: json_answer("FeedbackTaken", "What became of it")},
    (400, 404, 413, 415, 503),
    parameters=("Content-Encoding",),
    body={
        "required": True,
        "description": "One piece of feedback, or a list of them.",
        "content": {
            JSON: {
                "schema": ref("Feedback"),
                "examples": {
                    "one": {"summary": "one picture", "value": {"request_id": "0f3a9c1d-1", "label": 0}},
                },
            }
        },
    },
    description=(
        "Takes a server with a prediction log (`--prediction-log`); one without answers 404. A prediction is in the log"
        " a fraction of a second after its answer, which is waited for, so an id that is not known by then was never"
        " answered here, was deleted by age, or was not logged because the database was away. A label that the version"
        " does not have refuses the whole call. /metrics tells the accuracy that comes of it as `shoal_live_accuracy`."
    ),
)
