"""The heat map: the class-activation map of a model that brings one, and occlusion where it cannot be had."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.page import Page
from tests.wire.server_process import ServerProcess

# The page's requests go on, but those for /explain are answered by the test, as often as it says.
_INTERCEPT = """
const [status, kind, times] = arguments;
const real = window.fetch;
window.asked = 0;
window.fetch = (path, options) => {
  if (!String(path).startsWith("explain") || window.asked === times) return real(path, options);
  window.asked += 1;
  const problem = { type: kind, title: "", status, detail: "a detail", request_id: "id-7" };
  return Promise.resolve(new Response(JSON.stringify(problem), { status, headers: { "Retry-After": "0.01" } }));
};
"""


@pytest.fixture
def spot(page: Page, web_server: ServerProcess, tmp_path: Path) -> Page:
    """The page with one picture answered "bright", of which only the left half is bright enough for it."""
    pixels = np.full((48, 96, 3), 200, np.uint8)
    pixels[:, :48] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    page.open(web_server.url, "/?model=spot")
    [card] = page.choose(tmp_path / "half.png")
    assert card.best == "bright"
    return page


def show_heat(page: Page) -> Any:
    """Presses the button, and returns the map's pixels: `int[height, width, 4]`."""
    page.find(".why button").click()
    page.wait(lambda: page.find(".heat").is_displayed())
    width, height, *pixels = page.run(
        "const { width, height } = document.querySelector('.heat');"
        "const context = document.querySelector('.heat').getContext('2d');"
        "return [width, height, ...context.getImageData(0, 0, width, height).data]"
    )
    return np.array(pixels).reshape(height, width, 4)


def test_occlusion_is_warm_where_the_answer_comes_from(page: Page, web_server: ServerProcess, tmp_path: Path) -> None:
    # `tone` answers by brightness: grey over the bright half makes "bright" less likely, over the dark half more.
    pixels = np.full((64, 64, 3), 60, np.uint8)
    pixels[:, :32] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    page.open(web_server.url, "/?model=tone")
    [card] = page.choose(tmp_path / "half.png")
    heat = show_heat(page)
    sign = 1 if card.best == "bright" else -1
    warm = np.where(heat[..., 0] > heat[..., 2], 1, -1) * heat[..., 3]
    assert sign * warm[:, 4:12].mean() > 20
    assert sign * warm[:, 20:28].mean() < -20
    report = page.text(".report")
    assert "By occlusion" in report
    assert "169 places" in report
    frame, overlay = page.find(".stage img").rect, page.find(".heat").rect
    assert frame == pytest.approx(overlay, abs=1)
    page.find(".why button").click()
    assert not page.find(".heat").is_displayed()


def test_an_activation_map_is_one_request_and_warm_where_the_class_was_seen(spot: Page) -> None:
    spot.requests()
    heat = show_heat(spot)
    asked = [url.partition("/explain")[2] for url in spot.requests() if "/explain" in url or "/predict" in url]
    assert asked == ["?model=spot&version=1&class=bright"]
    assert heat.shape == (32, 32, 4)
    assert heat[:, :15, 3].min() > 200
    assert (heat[:, :15, 0] > heat[:, :15, 2]).all()
    assert heat[:, 18:, 3].max() < 10
    report = spot.text(".report")
    assert "By class activation map" in report
    assert "32 × 32 places" in report
    assert "“bright”" in report
    assert "occlusion" not in report


def test_it_lies_over_the_whole_picture_and_goes_away_again(spot: Page) -> None:
    show_heat(spot)
    assert spot.find(".stage img").rect == pytest.approx(spot.find(".heat").rect, abs=1)
    button = spot.find(".why button")
    assert (button.text, button.get_attribute("aria-expanded")) == ("Hide what matters", "true")
    assert spot.find(".report").get_attribute("aria-live") == "polite"  # the words reach who cannot see the colours
    button.click()
    assert not spot.find(".heat").is_displayed()
    assert not spot.find(".report").is_displayed()
    spot.requests()
    button.click()
    assert spot.find(".heat").is_displayed()
    assert [url for url in spot.requests() if "/explain" in url] == []  # drawn already


def test_a_map_in_which_nothing_stands_out_is_told_so(page: Page, web_server: ServerProcess, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (250, 250, 250)).save(tmp_path / "even.png")
    page.open(web_server.url, "/?model=spot")
    page.choose(tmp_path / "even.png")
    assert show_heat(page)[..., 3].max() == 0
    assert "No place says more for “bright” than the others." in page.text(".report")


def test_a_version_without_a_map_is_asked_by_occlusion(spot: Page) -> None:
    spot.run(_INTERCEPT, 404, "urn:shoal:no-activation-map", 1)
    show_heat(spot)
    assert "By occlusion" in spot.text(".report")
    assert "169 places" in spot.text(".report")


def test_a_server_with_no_room_is_asked_again(spot: Page) -> None:
    spot.run(_INTERCEPT, 429, "urn:shoal:overloaded", 2)
    show_heat(spot)
    assert spot.run("return window.asked") == 2
    assert "By class activation map" in spot.text(".report")


def test_a_failure_is_said_in_words_and_the_button_stays(spot: Page) -> None:
    spot.run(_INTERCEPT, 503, "urn:shoal:model-not-ready", 1)
    spot.find(".why button").click()
    spot.wait(lambda: "cannot answer now" in spot.text(".report"))
    assert "a detail (request id-7)" in spot.text(".report")
    assert not spot.find(".heat").is_displayed()
    spot.wait(lambda: spot.find(".why button").is_enabled())
    show_heat(spot)
    assert "By class activation map" in spot.text(".report")
