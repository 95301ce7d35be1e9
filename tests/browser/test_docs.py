"""The documentation page in a real browser: every route of the document, readable, and tried from the page itself."""

import json
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page
from tests.browser.test_page_axe import axe, violations
from tests.wire.bundles import picture
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess

__all__ = ["axe"]  # a fixture


@pytest.fixture
def docs(chromium: Page, web_server: ServerProcess) -> Page:
    chromium.forget()
    chromium.size(1000)
    chromium.prefer("light")
    chromium.driver.get(f"{web_server.url}/docs")
    chromium.wait(lambda: chromium.text("#count").endswith("routes"))
    return chromium


def unfold(docs: Page, route: str) -> None:
    """Opens a route; what it holds is made when it is opened."""
    docs.find(f"#{route} > summary").click()
    docs.wait(lambda: "Try it" in docs.text(f"#{route}"))


def answer_of(docs: Page, route: str) -> tuple[str, str]:
    """Sends what a route's form holds, and returns the line about the answer, and its body."""
    docs.find(f"#{route} form button").click()
    docs.wait(lambda: docs.find(f"#{route} form button").is_enabled() and docs.text(f"#{route} .result p") != "")
    return docs.text(f"#{route} .result p"), docs.text(f"#{route} .result pre")


def test_every_operation_of_the_document_is_shown(docs: Page, web_server: ServerProcess) -> None:
    with Http(web_server.http_port) as http:
        document = http.get("/openapi.json").json
    wanted = {operation["operationId"] for item in document["paths"].values() for operation in item.values()}
    shown = {element.get_attribute("id") for element in docs.driver.find_elements(By.CSS_SELECTOR, ".route")}
    assert shown == wanted
    assert docs.text("#count") == f"{len(wanted)} routes"
    assert docs.text("#version") == document["info"]["version"]


def test_the_page_is_quiet_and_asks_this_server_alone(docs: Page, web_server: ServerProcess) -> None:
    unfold(docs, "post_predict")
    requests = docs.requests()
    assert any(url.endswith("/openapi.json") for url in requests)
    assert [url for url in requests if not url.startswith((web_server.url, "data:"))] == []
    assert docs.errors() == []


def test_the_example_of_predict_is_answered(docs: Page) -> None:
    unfold(docs, "post_predict")
    line, body = answer_of(docs, "post_predict")
    assert line.startswith("200")
    assert "infer;dur=" in line
    assert json.loads(body)["model"] == "digits"


def test_a_file_and_a_path_parameter_are_sent(docs: Page, tmp_path: Path) -> None:
    file = tmp_path / "bright.png"
    file.write_bytes(picture(250))
    unfold(docs, "post_predict_model")
    inputs = docs.driver.find_elements(By.CSS_SELECTOR, "#post_predict_model form input[type=text]")
    inputs[0].clear()
    inputs[0].send_keys("tone")
    docs.find("#post_predict_model input[type=file]").send_keys(str(file))
    line, body = answer_of(docs, "post_predict_model")
    assert line.startswith("200")
    assert json.loads(body)["labels"] == ["bright"]


def test_an_error_is_shown_as_it_came(docs: Page) -> None:
    unfold(docs, "post_predict")
    field = docs.find("#post_predict textarea")
    field.clear()
    field.send_keys('{"data": [1, 2, 3]}')
    line, body = answer_of(docs, "post_predict")
    assert line.startswith("400")
    assert json.loads(body)["type"] == "urn:shoal:invalid-input"


def test_by_keyboard_alone(docs: Page) -> None:
    docs.press("/")
    assert docs.focused == "filter"
    docs.press(*"health live")
    docs.wait(lambda: docs.text("#count") == "2 routes")
    docs.press(Keys.TAB, Keys.ENTER)
    docs.wait(lambda: "Try it" in docs.text("#get_health_live"))
    line, body = answer_of(docs, "get_health_live")
    assert line.startswith("200")
    assert json.loads(body)["status"] == "alive"


def test_a_server_that_is_gone_is_told(docs: Page) -> None:
    unfold(docs, "get_health")
    docs.offline()
    try:
        docs.find("#get_health form button").click()
        docs.wait(lambda: docs.text("#get_health .result").startswith("No answer"))
    finally:
        docs.forget()


@pytest.mark.parametrize(("scheme", "width_px"), [("light", 1000), ("dark", 360)])
def test_axe_finds_no_fault(docs: Page, axe: str, scheme: str, width_px: int) -> None:
    docs.prefer(scheme)
    docs.size(width_px)
    assert violations(docs, axe) == []
    for route in ("get_model_info", "post_v2_models_model_infer", "post_predict"):
        unfold(docs, route)
    answer_of(docs, "post_predict")
    docs.run("document.querySelectorAll('details details').forEach((details) => (details.open = true))")
    assert violations(docs, axe) == []
    assert docs.run("return document.documentElement.scrollWidth <= window.innerWidth")
