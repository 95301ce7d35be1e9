"""What the OpenAPI document is put together from: one `Operation` for each route, and short ways to write schemas.

openapi_plain ─┐
openapi_v2 ────┼─Operation, beside each Route──▶ openapi.build ──▶ /openapi.json
openapi_… ─────┘
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Document = dict[str, Any]
# The form in which a protocol tells its errors.
ErrorForm = Literal["Problem", "V2Error", "TfError"]

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
SAMPLE_BYTES: Final = (  # a PNG file of one grey pixel: valid for every model that takes pictures
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True, eq=False)  # one of each: compared, and hashed, by what it is
class Operation:
    """What a route takes and answers, less what all routes have in common.

    Args:
        tag: The protocol it belongs to.
        answers: Responses by status; the headers of every answer are added.
        errors: Statuses that are told in the protocol's form of an error.
        error_form: Name of that form's schema.
        parameters: Names of shared parameters, of `openapi.PARAMETERS`; those in the path are added.
        body: The request's body.
        description: More than the route's summary tells.
    """

    tag: str
    answers: Mapping[int, Document]
    errors: tuple[int, ...] = ()
    error_form: ErrorForm = "Problem"
    parameters: tuple[str, ...] = ()
    body: Document | None = None
    description: str = ""


STRING: Final[Document] = {"type": "string"}
BOOLEAN: Final[Document] = {"type": "boolean"}
BYTES: Final[Document] = {"type": "string", "format": "binary"}  # 3.1 would say nothing at all; tools know this one
NUMBER: Final[Document] = {"type": "number"}
COUNT: Final[Document] = {"type": "integer", "minimum": 0}
INTEGERS: Final[Document] = {"type": "array", "items": {"type": "integer"}}


def ref(name: str, kind: str = "schemas") -> Document:
    """A reference to a component.

    Args:
        name: The component's.
        kind: Which of the document's components it is.
    """
    return {"$ref": f"#/components/{kind}/{name}"}


def record(optional: tuple[str, ...] = (), /, **properties: Document) -> Document:
    """An object with these properties and no others.

    Args:
        optional: Names of those that need not be there.
        properties: Schemas by name.
    """
    return open_record(optional, **properties) | {"additionalProperties": False}


def open_record(optional: tuple[str, ...] = (), /, **properties: Document) -> Document:
    """An object that may have more properties than these.

    Args:
        optional: Names of those that need not be there.
        properties: Schemas by name.
    """
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def array(items: Document, **limits: Any) -> Document:
    """A list.

    Args:
        items: Schema of each element.
        limits: More about it: minItems and its like.
    """
    return {"type": "array", "items": items, **limits}


def table(values: Document) -> Document:
    """An object whose keys are names.

    Args:
        values: Schema of each value.
    """
    return {"type": "object", "additionalProperties": values}


def answer(description: str, *contents: tuple[str, Document | None], **headers: Document) -> Document:
    """A response.

    Args:
        description: What it is.
        contents: Media types, each with its schema, or None where there is none but bytes.
        headers: Its own headers; hyphens as underscores.
    """
    document: Document = {"description": description}
    if headers:
        document["headers"] = {name.replace("_", "-"): header for name, header in headers.items()}
    if contents:
        document["content"] = {kind: {} if schema is None else {"schema": schema} for kind, schema in contents}
    return document


def json_answer(name: str, description: str) -> Document:
    """A response of JSON.

    Args:
        name: Of its schema.
        description: What it is.
    """
    return answer(description, (JSON, ref(name)))


def json_body(name: str, *, required: bool, example: Document | None = None) -> Document:
    """A request's body of JSON.

    Args:
        name: Of its schema.
        required: Whether there has to be one.
        example: One that is answered.
    """
    content: Document = {"schema": ref(name)}
    if example is not None:
        content["example"] = example
    return {"required": required, "content": {JSON: content}}
