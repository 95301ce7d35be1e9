"""clients/typescript: its own tests against a real server, what it would publish, its README, a page in Chromium."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server_process import Address
from tests.browser.page import start_chromium
from tests.clients.typescript_build import PACKAGE, build, install, run, serve_page

pytestmark = pytest.mark.slow  # npm, a compiler, a server and a browser
README = (PACKAGE / "README.md").read_text()
PROGRAMS = re.findall(r"```js\n(.*?)```", README, re.DOTALL)
(PAGE,) = re.findall(r"```html\n(.*?)```", README, re.DOTALL)
MODULES = ("client", "errors", "flight", "images", "index", "results", "retries", "streaming", "wire")

MANY_WAYS = """
const [text, done] = arguments;
const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
async function main() {
  const { ShoalClient } = await import("/shoal-client/dist/index.js");
  const client = new ShoalClient("/shoal");
  const file = new File([bytes], "seven.png", { type: "image/png" });
  const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  canvas.getContext("2d").drawImage(await createImageBitmap(file), 0, 0, 8, 8);
  const drawn = await new Promise((resolve) => canvas.toBlob(resolve));
  const found = { one: await client.classify(file), drawn: await client.classify(drawn), many: [] };
  for await (const { best } of client.classifyMany(Array(40).fill(bytes))) found.many.push(best.label);
  found.batch = (await client.classifyBatch([file, bytes])).predictions.length;
  found.model = (await client.modelInfo()).labels;
  found.ready = (await client.health()).ready;
  const fail = (promise) => promise.then(() => "no error", (error) => `${error.name}: ${error.message}`);
  found.errors = [
    await fail(client.classify(new Blob(["Dear diary"]))),
    await fail(client.classify(file, { signal: AbortSignal.abort(new Error("left")) })),
    await fail(client.classify(file, { timeoutMs: 0.001 })),
    await fail(new ShoalClient("/nowhere").classify(file)),
  ];
  return found;
}
main().then((found) => done({ found }), (error) => done({ error: String(error.stack) }));
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("typescript") / "package")


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(package, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def origin(installed: Path, server: Address) -> Iterator[str]:
    with serve_page(PAGE, installed, server.http) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("a page's client is tested in a real Chromium: install the packages chromium and chromium-driver")
    page = start_chromium(chromium, driver, tmp_path_factory.mktemp("chromium"))
    yield page.driver
    page.driver.quit()


def test_types(package: Path) -> None:
    checked = run("npm", "run", "check", cwd=package)
    assert checked.returncode == 0, checked.stdout


def test_its_own_tests_against_a_server(
    package: Path, server: Address, digits: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    for number, (file, label) in enumerate(digits):
        (tmp_path / f"{number:03}-{label}.png").write_bytes(file)
    files = sorted((package / "test").glob("*.test.mjs"))
    environment = {"SHOAL_URL": server.http, "SHOAL_PICTURES": str(tmp_path)}
    done = run("node", "--test", "--test-reporter=tap", *files, cwd=package, **environment)
    assert done.returncode == 0, done.stdout[-5000:]
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    assert counts["pass"] == counts["tests"] >= 25
    assert counts["skipped"] == 0


def test_what_would_be_published(package: Path) -> None:
    packed = run("npm", "pack", "--dry-run", "--ignore-scripts", "--json", cwd=package)
    assert packed.returncode == 0, packed.stderr
    names = {file["path"] for file in json.loads(packed.stdout)[0]["files"]}
    built = {f"dist/{module}.{suffix}" for module in MODULES for suffix in ("js", "d.ts")}
    assert names == built | {"LICENSE", "README.md", "package.json"}


def test_it_depends_on_nothing_and_its_compiler_is_pinned() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text())
    lock = json.loads((PACKAGE / "package-lock.json").read_text())
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & manifest.keys()
    assert list(manifest["devDependencies"]) == ["typescript"]
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages["node_modules/typescript"]["version"] == manifest["devDependencies"]["typescript"]
    assert all(entry["integrity"] and "resolved" not in entry for entry in packages.values())


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_of_the_readme(number: int, installed: Path, server: Address, root: Path) -> None:
    folder = installed.parents[1]
    program = folder / f"program{number}.mjs"
    program.write_text(PROGRAMS[number].replace("http://127.0.0.1:8000", server.http).replace("docs/", f"{root}/docs/"))
    done = run("node", "--throw-deprecation", program, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7")


def test_the_page_of_the_readme(browser: Any, origin: str, root: Path) -> None:
    browser.get(origin)
    browser.find_element("id", "file").send_keys(str(root / "docs" / "examples" / "seven.png"))
    label = browser.find_element("id", "label")
    browser.set_script_timeout(20)
    browser.execute_async_script(
        "const [label, done] = arguments; new MutationObserver(() => done()).observe(label, { childList: true });"
        "if (label.textContent) done();",
        label,
    )
    assert label.text == "7"


def test_every_way_in_a_browser(browser: Any, origin: str, seven: bytes) -> None:
    browser.get(origin)
    browser.set_script_timeout(30)
    told = browser.execute_async_script(MANY_WAYS, base64.b64encode(seven).decode())
    assert "error" not in told, told
    found = told["found"]
    assert found["one"]["best"]["label"] == found["drawn"]["best"]["label"] == "7"
    assert found["one"]["timing"]["inferMs"] > 0
    assert found["one"]["requestId"]
    assert found["many"] == ["7"] * 40
    assert (found["batch"], found["model"], found["ready"]) == (2, list("0123456789"), True)
    unsupported, left, late, elsewhere = found["errors"]
    assert unsupported.startswith("UnsupportedImageError: ")
    assert left == "Error: left"
    assert late.startswith("DeadlineExceededError: ")
    assert elsewhere.startswith("ServerFailedError: ")
