import io
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from server.images import ImageSpec, decode
from tests.browser.page import CardText, Page
from tests.wire.bundles import picture
from tests.wire.server_process import ServerProcess, run_server

ROOT = Path(__file__).resolve().parents[2]
FIRST_ANSWER_MS = 1000
FEW_TRIES = 3


@pytest.fixture(scope="session")
def golden() -> list[tuple[bytes, str, float]]:
    """The pictures that `models/digits` brings: file, what the model says, and how sure it was when it was exported."""
    with np.load(ROOT / "models" / "digits" / "1" / "golden.npz") as file:
        offsets, encoded, probabilities = file["offsets"], file["encoded"].tobytes(), file["probabilities"]
    return [
        (encoded[start:end], str(row.argmax()), float(row.max()))
        for start, end, row in zip(offsets, offsets[1:], probabilities, strict=False)
    ]


@pytest.fixture
def digit_files(golden: list[tuple[bytes, str, float]], tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"digit {number}.png" for number in range(6)]
    for file, (data, _, _) in zip(files, golden, strict=False):
        file.write_bytes(data)
    return files


def write_photo(path: Path, size: tuple[int, int] = (300, 180)) -> Path:
    """A picture with edges, colours and a gradient: bright on the left."""
    y, x = np.mgrid[: size[1], : size[0]]
    channels = [255 - 255 * x / size[0], 255 * ((x // 9 + y // 7) % 2), 255 * y / size[1]]
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)
    return path


def test_a_chosen_picture_gets_the_right_answer(
    page: Page, digit_files: list[Path], golden: list[tuple[bytes, str, float]]
) -> None:
    [card] = page.choose(digit_files[0])
    _, label, confidence = golden[0]
    assert card.name == "digit 0.png"
    assert card.best == label
    assert len(card.scores) == 5
    assert card.scores[0][0] == label
    shown = float(card.scores[0][1].strip("> %"))
    assert shown == pytest.approx(100 * confidence, abs=2)  # int8 answers for float32
    assert [stage.split()[0] for stage in card.stages] == ["decode", "queue", "infer", "rest"]
    assert "at the server" in card.foot
    assert "digits, version 1" in card.foot
    assert page.text("#news") == f"digit 0.png: {label}, {card.scores[0][1]}"


def test_bars_are_as_long_as_what_they_stand_for(page: Page, digit_files: list[Path]) -> None:
    [card] = page.choose(digit_files[0])
    lengths = page.run(
        "return [...document.querySelectorAll('.bar')]"
        ".map((bar) => bar.firstChild.getBoundingClientRect().width / bar.getBoundingClientRect().width)"
    )
    shares = [float(share.strip("<> %")) / 100 for _, share in card.scores]
    assert lengths == pytest.approx(shares, abs=0.02)  # the shortest is 2 px long
    stages = page.run("return [...document.querySelectorAll('.strip span')].map((part) => Number(part.style.flexGrow))")
    total, unit = card.foot.split()[:2]
    assert unit == "ms"
    assert sum(stages) == pytest.approx(float(total), rel=0.01)  # the parts are the whole


def test_many_at_once_keep_their_order_and_are_told_as_a_sum(
    page: Page, digit_files: list[Path], golden: list[tuple[bytes, str, float]]
) -> None:
    cards = page.choose(*digit_files)
    assert [card.name for card in cards] == [file.name for file in digit_files]
    assert [card.best for card in cards] == [label for _, label, _ in golden[:6]]
    page.wait(lambda: page.text("#news") == "6 pictures: 6 answered, 0 failed")


def test_a_text_file_is_refused_beside_its_name_and_hurts_no_other(
    page: Page, digit_files: list[Path], tmp_path: Path
) -> None:
    diary = tmp_path / "diary.png"
    diary.write_text("Dear diary, today")
    refused, answered = page.choose(diary, digit_files[0])
    assert refused.name == "diary.png"
    assert "This is not a picture that can be read." in refused.problem
    assert "Dear diary" in refused.problem  # the server's own words, on demand
    assert not refused.scores
    assert answered.best
    assert not answered.problem
    assert "This is not a picture" in page.text("#news")


def test_a_file_over_the_limit_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.bmp"
    Image.new("RGB", (900, 900)).save(large)  # 2.4 MB where 2 are allowed
    [card] = page.choose(large)
    assert "larger than the server takes" in card.problem


@pytest.mark.parametrize(
    ("status", "words"), [(429, "The server is busy"), (503, "cannot answer now"), (504, "no answer within 5 seconds")]
)
def test_a_refusal_is_said_in_words_and_can_be_tried_again(
    page: Page, digit_files: list[Path], status: int, words: str
) -> None:
    page.run(
        "const real = window.fetch, status = arguments[0];"
        "window.fetch = async () => { window.fetch = real;"
        "  return new Response(JSON.stringify({ detail: 'a detail', request_id: 'id-7' }), { status }); };",
        status,
    )
    [card] = page.choose(digit_files[0])
    assert words in card.problem
    assert "a detail (request id-7)" in card.problem
    page.find(".problem button").click()
    [card] = page.settle(1)
    assert card.best
    assert not card.problem


def test_a_network_that_is_down_is_said_in_words(page: Page, digit_files: list[Path]) -> None:
    page.offline()
    [card] = page.choose(digit_files[0])
    assert "The server cannot be reached." in card.problem
    assert "Failed to fetch" in card.problem  # the browser's own words, on demand
    page.forget()
    page.find(".problem button").click()
    [card] = page.settle(1)
    assert card.best


def test_a_server_that_was_killed_is_said_in_words(chromium: Page, web_models: Path, tmp_path: Path) -> None:
    with run_server(web_models, tmp_path / "server") as process:
        chromium.forget()
        chromium.open(process.url)
        process.signal(signal.SIGTERM)
        process.wait()
        chromium.hand_over("drop", "late.png", picture(250))
        [card] = chromium.settle(1)
    assert "The server cannot be reached." in card.problem


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_comes_by_drop_and_by_paste(page: Page, golden: list[tuple[bytes, str, float]], kind: str) -> None:
    data, label, _ = golden[1]
    page.hand_over(kind, "handed.png", data)
    [card] = page.settle(1)
    assert (card.name, card.best) == ("handed.png", label)


def test_the_place_to_drop_shows_that_it_is_one(page: Page) -> None:
    page.hand_over("dragenter", "a.png", b"")
    assert "over" in (page.find("#drop").get_attribute("class") or "")
    page.hand_over("dragleave", "a.png", b"")
    assert "over" not in (page.find("#drop").get_attribute("class") or "")


def test_the_camera_takes_a_picture_and_is_let_go(page: Page) -> None:
    page.wait(lambda: page.find("#camera").is_displayed())
    page.find("#camera").click()
    page.wait(lambda: page.find("#shoot").is_enabled())
    page.run("window.track = document.getElementById('video').srcObject.getVideoTracks()[0]")
    page.find("#shoot").click()
    [card] = page.settle(1)
    assert card.name.startswith("camera, ")
    assert card.best
    page.wait(lambda: page.run("return document.getElementById('video').srcObject === null"))
    assert page.run("return window.track.readyState") == "ended"  # the camera's light goes out
    assert not page.find("#viewfinder").is_displayed()


def test_without_a_camera_none_is_offered(page: Page, web_server: ServerProcess) -> None:
    script = "navigator.mediaDevices.enumerateDevices = async () => []"
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open(web_server.url)
        page.choose(write_photo(Path(page.driver.capabilities["chrome"]["userDataDir"]) / "photo.png"))
        assert not page.find("#camera").is_displayed()
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_an_example_of_the_models_own_is_one_click_away(page: Page, golden: list[tuple[bytes, str, float]]) -> None:
    page.find("#example").click()
    [card] = page.settle(1)
    assert (card.name, card.best) == ("example 1", golden[0][1])


def test_another_model_or_version_answers_again_what_is_there(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "bright.png"
    file.write_bytes(picture(250))
    page.choose(file)
    assert [option.text for option in Select(page.find("#model")).options] == ["digits", "spot", "tone"]
    Select(page.find("#model")).select_by_value("tone")
    page.wait(lambda: "tone, version 2" in page.text(".timing"))
    [card] = page.settle(1)
    assert card.best == "bright"
    assert "32 × 32 pixels in colour" in page.text("#summary")
    assert [option.get_attribute("value") for option in Select(page.find("#version")).options] == ["", "2", "1"]
    Select(page.find("#version")).select_by_value("1")
    page.wait(lambda: "tone, version 1" in page.text(".timing"))
    assert page.driver.current_url.endswith("/?model=tone&version=1")


def test_an_address_names_the_model_and_a_lost_one_falls_back(page: Page, web_server: ServerProcess) -> None:
    page.open(web_server.url, "/?model=tone&version=1")
    assert Select(page.find("#version")).first_selected_option.text == "1"
    page.open(web_server.url, "/?model=nobody")
    assert Select(page.find("#model")).first_selected_option.text == "digits"


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "tall.png", "tiny.png"])
def test_what_the_model_sees_is_what_the_server_makes_of_it(
    page: Page, web_server: ServerProcess, tmp_path: Path, name: str
) -> None:
    sizes = {"tall.png": (50, 700), "tiny.png": (20, 12)}
    file = write_photo(tmp_path / name, sizes.get(name, (300, 180)))
    page.open(web_server.url, "/?model=tone")
    page.choose(file)
    script = "return [...document.querySelector('.seen').getContext('2d').getImageData(0, 0, 32, 32).data]"
    seen = np.array(page.run(script)).reshape(32, 32, 4)[..., :3]
    made = decode(file.read_bytes(), ImageSpec(32, 32, 3)).astype(int)
    assert np.abs(seen - made).mean() < (3 if name.endswith("jpg") else 1)  # JPEG decoders differ by shades


def test_a_picture_that_the_browser_cannot_show_is_answered_still(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "scan.tiff"
    file.write_bytes(picture(250, form="TIFF"))
    [card] = page.choose(file)
    assert card.best
    page.wait(lambda: "cannot show" in page.text(".frame"))
    assert page.driver.find_elements(By.CSS_SELECTOR, ".seen") == []


def luminance(page: Page, property_name: str) -> float:
    script = f"return getComputedStyle(document.body).{property_name}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    return float(np.dot(page.run(script), [0.2126, 0.7152, 0.0722]))


def test_dark_mode_follows_the_system_until_someone_chooses(page: Page, web_server: ServerProcess) -> None:
    assert luminance(page, "backgroundColor") > 200
    page.prefer("dark")
    assert luminance(page, "backgroundColor") < 40
    assert luminance(page, "color") > 200
    page.wait(lambda: page.find("#theme").get_attribute("aria-pressed") == "true")
    page.find("#theme").click()
    assert luminance(page, "backgroundColor") > 200
    page.open(web_server.url)
    page.prefer("dark")
    assert luminance(page, "backgroundColor") > 200  # remembered
    assert page.find("#theme").get_attribute("aria-pressed") == "false"


def test_the_keyboard_alone_is_enough(page: Page, golden: list[tuple[bytes, str, float]]) -> None:
    reached = []
    for _ in range(7):
        page.press(Keys.TAB)
        reached.append(page.focused)
    assert reached == ["theme", "model", "version", "About this model", "files", "camera", "example"]
    page.press(Keys.ENTER)
    [card] = page.settle(1)
    assert card.best == golden[0][1]
    page.press(Keys.TAB)
    assert page.focused == "clear"
    page.press(Keys.TAB)
    assert page.focused == "Remove example 1"
    page.press(Keys.TAB, Keys.ENTER)
    page.wait(lambda: page.find(".heat").is_displayed())
    assert page.focused == "Hide what matters"
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    assert page.focused == "Remove example 1"
    page.press(Keys.ENTER)
    assert page.cards() == []
    assert page.focused == "files"


def overflowing(page: Page) -> list[str]:
    return list(
        page.run(
            "return [...document.body.querySelectorAll('*')]"
            ".filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)"
            ".map((e) => e.tagName + '.' + e.className)"
        )
    )


@pytest.mark.parametrize("width_px", [320, 360, 768])
def test_nothing_sticks_out_of_a_narrow_window(
    page: Page, web_server: ServerProcess, tmp_path: Path, width_px: int
) -> None:
    page.open(web_server.url, "/?model=tone")
    page.size(width_px)
    (tmp_path / "text.png").write_text("x" * 300)
    page.choose(write_photo(tmp_path / ("long-name-" * 12 + ".png"), (1600, 300)), tmp_path / "text.png")
    page.run("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    page.find(".why button").click()
    page.wait(lambda: page.find(".heat").is_displayed())
    assert page.run("return document.documentElement.scrollWidth") <= width_px
    assert overflowing(page) == []


def test_no_error_in_the_console_and_no_request_elsewhere(
    page: Page, web_server: ServerProcess, digit_files: list[Path]
) -> None:
    page.choose(*digit_files)
    page.find(".why button").click()
    page.wait(lambda: page.find(".heat").is_displayed())
    page.find("#camera").click()
    page.wait(lambda: page.find("#shoot").is_enabled())
    page.find("#close").click()
    assert page.errors() == []
    asked = page.requests()
    assert f"{web_server.url}/predict?top_k=5" in asked
    assert [
        url for url in asked if not url.startswith((web_server.url + "/", f"blob:{web_server.url}/", "data:"))
    ] == []


def test_the_first_answer_on_a_fresh_page_is_there_within_a_second(
    page: Page, web_server: ServerProcess, golden: list[tuple[bytes, str, float]]
) -> None:
    # From the drop to the answer on the page. A machine that does other things too may need another try.
    waits_ms = []
    for _ in range(FEW_TRIES):
        page.open(web_server.url)
        page.run(
            "const cards = document.getElementById('cards');"
            "document.addEventListener('drop', () => (window.droppedMs = performance.now()), true);"
            "const look = () => document.querySelector('.verdict') && (window.answeredMs ??= performance.now());"
            "new MutationObserver(look).observe(cards, { childList: true, subtree: true });"
        )
        page.hand_over("drop", "first.png", golden[0][0])
        page.settle(1)
        waits_ms.append(page.run("return window.answeredMs - window.droppedMs"))
        if waits_ms[-1] < FIRST_ANSWER_MS:
            return
    pytest.fail(f"expected a first answer within {FIRST_ANSWER_MS} ms, it took {waits_ms}")


def test_removing_a_card_leaves_the_others(page: Page, digit_files: list[Path]) -> None:
    page.choose(*digit_files[:3])
    page.driver.find_elements(By.CSS_SELECTOR, ".remove")[1].click()
    assert [card.name for card in page.settle(2)] == ["digit 0.png", "digit 2.png"]
    assert page.focused == "Remove digit 2.png"
    page.find("#clear").click()
    assert page.cards() == []
    assert not page.find("#results").is_displayed()


def test_a_name_is_shown_as_text_whatever_it_holds(page: Page) -> None:
    name = "<img src=x onerror=document.title='owned'>.png"
    page.hand_over("drop", name, picture(250))
    [card] = page.settle(1)
    assert isinstance(card, CardText)
    assert card.name == name
    assert page.driver.title == "Shoal"


def test_transparency_lies_on_white(page: Page, web_server: ServerProcess) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(buffer, "PNG")
    page.open(web_server.url, "/?model=tone")
    page.hand_over("drop", "clear.png", buffer.getvalue())
    [card] = page.settle(1)
    assert card.best == "bright"
    assert page.run("return document.querySelector('.seen').getContext('2d').getImageData(9, 9, 1, 1).data[0]") == 255
