"""A real Chromium, headless, on a real server of `models/digits` (8×8 grey) and bundles of brightness (32×32 RGB)."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.page import Page, start_chromium
from tests.wire.bundles import write_bundle
from tests.wire.server_process import ServerProcess, run_server

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)  # each drives a browser
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def web_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: `digits`, which ships and is the default, two versions of `tone`, and `spot`, which has heat maps."""
    models = tmp_path_factory.mktemp("web-models")
    shutil.copytree(ROOT / "models" / "digits", models / "digits")
    write_bundle(models, "tone", 1, height=32, width=32, channels=3)
    write_bundle(models, "tone", 2, height=32, width=32, channels=3)
    write_bundle(models, "spot", 1, height=32, width=32, channels=3, explained=True)
    (models / "tone" / "policy.json").write_text(json.dumps({"versions": "all"}))
    return models


@pytest.fixture(scope="session")
def web_server(web_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ("--default-model", "digits", "--max-body-bytes", "2000000", "--latency-budget-ms", "5000")
    with run_server(web_models, tmp_path_factory.mktemp("web-server"), *flags) as process:
        yield process


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("the page is tested in a real Chromium: install the packages chromium and chromium-driver")
    page = start_chromium(browser, driver, tmp_path_factory.mktemp("chromium"))
    yield page
    page.driver.quit()


@pytest.fixture
def page(chromium: Page, web_server: ServerProcess) -> Page:
    """The page, freshly opened in light mode at 1000 px, with nothing remembered."""
    chromium.forget()
    chromium.open(web_server.url)
    return chromium
