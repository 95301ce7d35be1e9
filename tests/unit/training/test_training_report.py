"""The report is one file that asks nothing of a network and lets no class name become markup."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # scikit-learn and matplotlib take half a second each to import

NAMES = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b")
RECORD = {
    "name": "run-of-a-test",
    "model": "cnn",
    "model_settings": {"filters": [8, 16]},
    "image": {"height_px": 5, "width_px": 7, "channels": 3},
    "labels": list(NAMES),
    "epochs": 2,
    "git_revision": "f" * 40,
    "created_at": "2030-01-02T03:04:05Z",
    "parameters": 1234567,
    "data": {"source": "<b>folder</b>", "fingerprint": "sha256:0", "rows": {"train": 10_000, "test": 4}},
    "tools": {"keras": "3.0"},
}


class Page(HTMLParser):
    """Collects what a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def sources(self) -> list[str]:
        return [attributes["src"] or "" for _, attributes in self.tags if "src" in attributes]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(tmp_path_factory.mktemp("run"), calibration(applied=True))


def render(folder: Path, calibrated: dict[str, Any]) -> str:
    from training import metrics, report  # noqa: PLC0415

    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]], dtype=np.float32)
    labels = np.array([0, 1, 1, 2])
    measured = {
        "validation": {"accuracy": 0.5, "loss": 1.0, "rows": 4},
        "calibration": calibrated,
        "test": metrics.report(probabilities, labels, NAMES),
        "most_wrong": metrics.most_wrong(probabilities, labels, NAMES),
    }
    (folder / "figures").mkdir()
    for name in ("learning_curves", "confusion_matrix", "per_class", "reliability"):
        Image.new("L", (3, 2), 200).save(folder / "figures" / f"{name}.png")
    rows = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    report.write(folder, RECORD, measured, rows)
    return (folder / "report.html").read_text(encoding="utf-8")


def calibration(*, applied: bool) -> dict[str, Any]:
    measures = {"temperature": 1.25, "rows": 4, "nll_before": 2, "nll_after": 1, "ece_before": 0.5, "ece_after": 0.25}
    return {
        "method": "temperature scaling",
        "applied": applied,
        "reason": "" if applied else "of <i>this</i>",
        **measures,
    }


def test_class_names_are_text_and_never_markup(text: str) -> None:
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "i"})
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    for name in (*NAMES, "<b>folder</b>"):
        assert [words for words in page.words if name in words], name


def test_nothing_is_asked_of_a_network(text: str) -> None:
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert all(source.startswith("data:image/png;base64,") for source in page.sources())
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    policy = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_figure_and_wrong_picture_is_inside(text: str) -> None:
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2]))) for one in Page(text).sources()]
    assert sorted(picture.size for picture in pictures) == [(3, 2)] * 4 + [(7, 5)] * 2


def test_the_page_says_what_was_measured(text: str) -> None:
    words = " ".join(" ".join(Page(text).words).split())
    for expected in ("50.00 %", "1,234,567", "temperature of 1.250", "10,000 train", "filters = [8, 16]"):
        assert expected in words, expected


def test_a_temperature_that_was_not_applied_has_its_reason(tmp_path: Path) -> None:
    words = " ".join(Page(render(tmp_path, calibration(applied=False))).words)
    assert "Temperature scaling was not applied: of <i>this</i>." in words


def test_pairs_of_confused_classes_by_their_number() -> None:
    from training import report  # noqa: PLC0415

    assert report.confused([[5, 0, 3], [1, 9, 0], [0, 0, 4]], ("a", "b", "c")) == [
        {"truth": "a", "predicted": "c", "rows": 3, "share": 3 / 8},
        {"truth": "b", "predicted": "a", "rows": 1, "share": 0.1},
    ]
