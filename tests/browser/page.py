"""The page as a person has it in front of them: open it, hand it pictures, read what it says."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WITHIN_S: Final = 20.0
POLL_S: Final = 0.02
HEIGHT_PX: Final = 900

# Pictures reach a page by drop and by paste as a DataTransfer, which only a script can fill.
_HAND_OVER: Final = """
const [kind, name, type, text] = arguments;
const data = new DataTransfer();
data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type }));
const target = kind === "paste" ? document.body : document.getElementById("drop");
target.dispatchEvent(kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
  : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
"""


@dataclass(frozen=True)
class CardText:
    """What one card says.

    Args:
        name: Of the file.
        best: The first class; empty where there is none.
        scores: Label and share of each class listed.
        stages: Time at the server, by stage.
        problem: What went wrong, in words; empty where nothing did.
        foot: The line below: sums, and who answered.
    """

    name: str
    best: str
    scores: list[tuple[str, str]]
    stages: list[str]
    problem: str
    foot: str


class Page:
    """The page in one browser window.

    Args:
        driver: Selenium's, of a Chromium; some of its methods are untyped.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, path: str = "/") -> None:
        """Opens it, and waits until it knows what is served."""
        self.size(1000)
        self.prefer("light")
        self.driver.get(url + path)
        self.wait(lambda: "classes" in self.text("#summary"))

    def forget(self) -> None:
        """Drops what an earlier test left: storage of the page that is open, and the logs."""
        if self.driver.current_url.startswith("http"):
            self.run("localStorage.clear()")
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", _network(offline=False))
        for kind in ("browser", "performance"):
            self._log(kind)

    def find(self, selector: str) -> Any:
        """The first element of that selector: Selenium's `WebElement`."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, met: Callable[[], object]) -> None:
        WebDriverWait(self.driver, WITHIN_S, POLL_S).until(lambda _: met())

    def size(self, width_px: int) -> None:
        metrics = {"width": width_px, "height": HEIGHT_PX, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def offline(self) -> None:
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", _network(offline=True))

    def choose(self, *files: Path) -> list[CardText]:
        """Chooses files, and returns all cards once each has its answer or its problem."""
        count = len(self.cards())
        self.find("#files").send_keys("\n".join(map(str, files)))
        return self.settle(count + len(files))

    def hand_over(self, kind: str, name: str, data: bytes, media_type: str = "image/png") -> None:
        """Lets a "dragenter", "drop" or "paste" happen with one file."""
        self.run(_HAND_OVER, kind, name, media_type, base64.b64encode(data).decode())

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    @property
    def focused(self) -> str:
        """The focused element's id, or its label, or its text."""
        return str(self.run("const e = document.activeElement; return e.id || e.ariaLabel || e.textContent.trim()"))

    def cards(self) -> list[WebElement]:
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, ".card")
        return found

    def settle(self, count: int) -> list[CardText]:
        """Waits for so many finished cards and reads them."""
        self.wait(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, ".card[aria-busy=false]")) == count)
        # A picture that appears later moves what is below it, and a click would miss.
        self.wait(lambda: self.run("return [...document.images].every((image) => image.complete)"))
        return [self._read(card) for card in self.cards()]

    def errors(self) -> list[str]:
        """What the console shows as a warning or an error, the answers' own statuses left out."""
        entries = self._log("browser")
        return [
            entry["message"] for entry in entries if "the server responded with a status of 4" not in entry["message"]
        ]

    def requests(self) -> list[str]:
        """Every address that this page asked for since the logs were dropped."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(kind)
        return entries

    def _read(self, card: WebElement) -> CardText:
        def texts(selector: str) -> list[str]:
            found = self.run(
                "return [...arguments[0].querySelectorAll(arguments[1])].map((e) => e.textContent)", card, selector
            )
            return [str(text) for text in found]

        return CardText(
            name=texts("h3")[0],
            best="".join(texts(".verdict strong")),
            scores=list(zip(texts(".label"), texts(".share"), strict=True)),
            stages=texts(".stages li"),
            problem="".join(texts(".problem")),
            foot="".join(texts(".timing p")),
        )


def start_chromium(browser: str, driver: str, folder: Path) -> Page:
    """Starts a headless Chromium with a camera that shows a test picture.

    Args:
        browser: Chromium's executable.
        driver: chromedriver's.
        folder: For its profile.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new",
        "--no-sandbox",  # containers run tests as root
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Page(webdriver.Chrome(options=options, service=Service(driver)))


def _network(*, offline: bool) -> dict[str, object]:
    return {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
