"""The OpenAPI document against the server that hands it out."""

from pathlib import Path
from typing import Any

import pytest

from server.images import FORMATS
from tests.wire.fuzz_http import CONTROL, LIMITS, Outcome, fuzz, write_models
from tests.wire.http_client import Http
from tests.wire.server_process import run_server

pytestmark = pytest.mark.slow  # each starts from a server process

SEED = 1
EXAMPLES = 1
FEWEST = 500


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("fuzz")
    write_models(folder / "models")
    with run_server(folder / "models", folder / "server", *LIMITS, *CONTROL) as server:
        return fuzz(server.url, folder, examples=EXAMPLES, seed=SEED)


def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(outcome: Outcome) -> None:
    assert outcome.right, outcome.words[-5000:]
    assert outcome.cases >= FEWEST


def test_every_operation_was_asked(outcome: Outcome, http: Http) -> None:
    # All but /openapi.json itself, which schemathesis reads first and leaves out.
    assert outcome.operations == len(http.get("/routes").json["routes"]) - 1


def test_the_document_has_every_route_that_is_mounted(http: Http) -> None:
    document: Any = http.get("/openapi.json").json
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert told == {(route["method"], route["path"]) for route in http.get("/routes").json["routes"]}


def test_the_document_is_sent_once_and_then_told_to_be_the_same(http: Http) -> None:
    answer = http.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    again = http.get("/openapi.json", **{"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    assert again.body == b""
    assert http.get("/openapi.json", **{"If-None-Match": '"other"'}).status == 200


def test_it_names_the_models_that_are_served(http: Http) -> None:
    document: Any = http.get("/openapi.json").json
    assert document["components"]["parameters"]["path.model"]["schema"]["examples"] == ["grey", "rgb"]
    assert document["info"]["version"] == http.get("/health").json["shoal_version"]


def test_every_picture_format_is_a_media_type_of_predict(http: Http) -> None:
    document: Any = http.get("/openapi.json").json
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {f"image/{form.lower()}" for form in FORMATS} <= content.keys()


def test_examples_are_answered_as_they_stand(http: Http) -> None:
    document: Any = http.get("/openapi.json").json
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        values = [example["value"] for example in content.get("examples", {}).values()]
        values += [content["example"]] if "example" in content else []
        for value in values:
            answer = http.predict(value, path=path.format(model="grey", version=1, label="latest"))
            # a prediction that was never made cannot be told about
            assert answer.status == (404 if path == "/feedback" else 200), (path, answer.body)


def test_the_page_is_there_without_another_host(http: Http) -> None:
    page = http.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert b"://" not in page.body
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_configuration_of_the_run_is_beside_it() -> None:
    text = (Path(__file__).parent / "fuzz_http.toml").read_text()
    assert "positive_data_acceptance.enabled = false" in text
    assert text.count("enabled = false") == 1  # every other check holds
