"""The pages of a server that asks who is there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.auth_keys import make_key
from tests.browser.page import Page
from tests.wire.bundles import picture
from tests.wire.server_process import ServerProcess, run_server


@dataclass
class Asking:
    server: ServerProcess
    key: str


@pytest.fixture(scope="module")
def asking(web_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    folder = tmp_path_factory.mktemp("asking")
    key, line = make_key("person", ["predict"])
    (folder / "keys").write_text(line)
    flags = ("--default-model", "tone", "--latency-budget-ms", "5000", "--api-keys", str(folder / "keys"))
    with run_server(web_models, folder / "run", *flags) as server:
        yield Asking(server, key)


def arrive(page: Page, asking: Asking, path: str) -> None:
    """Opens a page in a tab that nobody has entered anything in."""
    page.forget()
    page.driver.get(asking.server.url + path)
    page.run("sessionStorage.clear()")
    page.driver.refresh()
    page.forget()


def enter(page: Page, text: str) -> None:
    page.wait(lambda: page.find("#who").is_displayed())
    page.find("#pass").send_keys(text)
    page.find("#who button").click()


def test_a_key_that_is_typed_in_opens_the_page_until_the_tab_is_closed(
    chromium: Page, asking: Asking, tmp_path: Path
) -> None:
    arrive(chromium, asking, "/")
    chromium.wait(lambda: "does not know who is asking" in chromium.text("#summary"))
    assert chromium.focused == "pass"
    enter(chromium, "shoal_wrong")
    enter(chromium, asking.key)
    chromium.wait(lambda: "classes" in chromium.text("#summary"))
    assert not chromium.find("#who").is_displayed()
    file = tmp_path / "bright.png"
    file.write_bytes(picture(250, 32, 32, 3))
    [card] = chromium.choose(file)
    assert (card.best, card.problem) == ("bright", "")
    chromium.open(asking.server.url)  # the tab remembers it, this server's log and address do not
    assert asking.key not in asking.server.log
    assert asking.key not in chromium.driver.current_url
    assert chromium.errors() == []


def test_a_route_is_tried_with_the_same_key(chromium: Page, asking: Asking) -> None:
    arrive(chromium, asking, "/docs#get_model_info")
    route = "#get_model_info"
    chromium.wait(lambda: chromium.run("return document.querySelector(arguments[0] + ' .try') !== null", route))
    chromium.find(f"{route} .try button").click()
    chromium.wait(lambda: chromium.text(f"{route} .result").startswith("401"))
    enter(chromium, asking.key)
    chromium.find(f"{route} .try button").click()
    chromium.wait(lambda: chromium.text(f"{route} .result").startswith("200"))
