"""The OpenAPI document against the table of routes that it is made from."""

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from server.tensors import DTYPES
from server.transports.codecs.compression import CODINGS
from server.transports.http_docs import DOCS_ROUTES
from server.transports.http_explain import EXPLAIN_ROUTES
from server.transports.http_feedback import FEEDBACK_ROUTES
from server.transports.http_routes import ROUTES, Route
from server.transports.openapi import MEDIA_OF_ERRORS, SCHEMAS, Served, build
from server.transports.openapi_parts import Document
from server.transports.status import TABLE
from server.transports.tfserving_http import TFSERVING_ROUTES
from server.transports.v2_http import V2_ROUTES

ALL: tuple[Route, ...] = (*ROUTES, *EXPLAIN_ROUTES, *FEEDBACK_ROUTES, *DOCS_ROUTES, *V2_ROUTES, *TFSERVING_ROUTES)


@pytest.fixture(scope="module")
def document() -> Document:
    return build(ALL, Served("1.2.3", ("pets", "digits"), "pixels"))


def operations(document: Document) -> dict[tuple[str, str], Document]:
    return {(method.upper(), path): made for path, item in document["paths"].items() for method, made in item.items()}


@pytest.mark.slow
def test_the_document_is_openapi_3_1(document: Document) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_is_in_it_and_nothing_else(document: Document) -> None:
    assert operations(document).keys() == {(route.method, route.path) for route in ALL}


def test_operations_are_told_apart_by_their_ids(document: Document) -> None:
    ids = [made["operationId"] for made in operations(document).values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"\w+", name) for name in ids)


def test_every_answer_carries_its_name_and_its_time(document: Document) -> None:
    for (method, path), made in operations(document).items():
        for status, told in made["responses"].items():
            answer = told
            if "$ref" in told:
                answer = document["components"]["responses"][told["$ref"].rpartition("/")[2]]
            assert {"X-Request-Id", "Server-Timing"} <= answer["headers"].keys(), (method, path, status)


def test_errors_are_those_of_the_one_table_in_the_form_of_their_protocol(document: Document) -> None:
    responses = document["components"]["responses"]
    for form, media in MEDIA_OF_ERRORS.items():
        unavailable = responses[f"{form}503"]
        for kind in TABLE.values():
            if kind.http == 503:
                assert f"{kind.kind}: {kind.title}" in unavailable["description"]
        assert unavailable["content"] == {media: {"schema": {"$ref": f"#/components/schemas/{form}"}}}
    assert "Retry-After" in responses["Problem429"]["headers"]
    assert "Accept-Encoding" in responses["Problem415"]["headers"]


def test_names_in_a_path_are_its_parameters_and_asked_for_once(document: Document) -> None:
    shared = document["components"]["parameters"]
    for (_, path), made in operations(document).items():
        asked = [shared[reference["$ref"].rpartition("/")[2]] for reference in made.get("parameters", [])]
        assert {parameter["name"] for parameter in asked if parameter["in"] == "path"} == set(
            re.findall(r"\{(\w+)\}", path)
        )
        names = [parameter["name"] for parameter in asked]
        assert len(set(names)) == len(names), path


def test_every_body_may_be_compressed(document: Document) -> None:
    shared = document["components"]["parameters"]["Content-Encoding"]["schema"]
    for text in (*CODINGS, "gzip, gzip", "zstd,deflate", "identity", ""):
        assert re.search(shared["pattern"], text), text
    for text in ("br", "gzip, br", "gzip;q=1", "gzip, gzip, gzip, gzip"):
        assert not re.search(shared["pattern"], text), text
    for (method, path), made in operations(document).items():
        asked = [reference["$ref"].rpartition("/")[2] for reference in made.get("parameters", [])]
        assert ("Content-Encoding" in asked) == ("requestBody" in made), (method, path)


def test_examples_name_what_is_served(document: Document) -> None:
    assert document["components"]["parameters"]["path.model"]["schema"]["examples"] == ["pets", "digits"]
    content = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert content["examples"]["picture"]["value"]["inputs"][0]["name"] == "pixels"
    assert "{input}" not in str(document)
    assert document["info"]["version"] == "1.2.3"


def test_no_schema_is_left_over(document: Document) -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert named == SCHEMAS.keys()


def test_datatypes_are_the_ones_that_there_are(document: Document) -> None:
    schema = document["components"]["schemas"]["V2InputTensor"]["properties"]["datatype"]
    assert schema["enum"] == [*DTYPES]
