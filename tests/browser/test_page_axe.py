"""axe-core, the engine behind most accessibility audits, finds nothing serious in any state of the page."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.page import Page
from tests.wire.bundles import picture

VERSION = "4.10.3"
INSTALL_LIMIT_S = 120


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's source, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("axe-core comes from npm: install Node.js with npm")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", f"axe-core@{VERSION}"]
    installed = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
    )
    if installed.returncode:
        pytest.skip(f"axe-core cannot be installed from npm here: {installed.stderr[-300:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def violations(page: Page, axe: str) -> list[str]:
    page.run(axe)
    found = page.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, { resultTypes: ['violations'] }).then((result) => done(JSON.stringify(result.violations)))"
    )
    return [
        f"{violation['impact']} {violation['id']}: {violation['help']}: {node['html'][:150]} {node['failureSummary']}"
        for violation in json.loads(found)
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [360, 1000])
def test_no_fault_in_any_state(page: Page, axe: str, tmp_path: Path, scheme: str, width_px: int) -> None:
    page.prefer(scheme)
    page.size(width_px)
    assert violations(page, axe) == []
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "bright.png").write_bytes(picture(250))
    page.choose(tmp_path / "text.png", tmp_path / "bright.png")
    page.run("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    page.find(".why button").click()
    page.wait(lambda: page.find(".heat").is_displayed())
    assert violations(page, axe) == []
    page.find("#camera").click()
    page.wait(lambda: page.find("#shoot").is_enabled())
    assert violations(page, axe) == []
    page.find("#close").click()


def test_axe_would_find_a_fault(page: Page, axe: str) -> None:
    page.run("document.getElementById('summary').style.color = '#bbb'")
    assert any("color-contrast" in violation for violation in violations(page, axe))
