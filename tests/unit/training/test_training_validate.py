"""`python -m training validate`: every fault that was put into a data set is found, and nothing else."""

import html.parser
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from training import validation_duplicates
from training.data.loading import load
from training.settings import TrainSettings

Command = Callable[..., int]


@pytest.fixture
def folder(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures of noise in each of two classes and splits; the report goes beside them."""
    root = make_folder(count=12, size_px=(32, 32))
    monkeypatch.chdir(root.parent)
    return root


def run(command: Command, root: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    try:
        code = command("validate", "--data", str(root), *flags)
    except SystemExit as stop:
        code = int(str(stop.code))
    return code, json.loads((root.parent / "validation" / root.name / "report.json").read_text())


def kinds(report: dict[str, Any]) -> dict[str, int]:
    return {finding["kind"]: finding["count"] for finding in report["findings"]}


def files(report: dict[str, Any], kind: str) -> list[set[str]]:
    (finding,) = (finding for finding in report["findings"] if finding["kind"] == kind)
    return [{one["file"] for one in group} for group in finding["groups"]]


def quarantined(root: Path) -> dict[str, str]:
    content = json.loads((root.parent / "validation" / root.name / "quarantine.json").read_text())
    return {entry["file"]: entry["reason"] for entry in content["files"]}


def test_good_data_pass(command: Command, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(command, folder, "--strict")
    assert (code, report["findings"], report["errors"], report["warnings"]) == (0, [], 0, 0)
    assert report["classes"] == {"train": {"cat": 12, "dog": 12}, "test": {"cat": 12, "dog": 12}}
    assert report["sizes_px"] == [{"height_px": 32, "width_px": 32, "pictures": 48}]
    assert (report["modes"], report["kinds"], report["sides_px"]) == ({"RGB": 48}, {"PNG": 48}, [32, 32, 32])
    assert report["total_bytes"] == sum(file.stat().st_size for file in folder.rglob("*.png"))
    assert report["fingerprint"] == load(TrainSettings.parse({"data": str(folder)})).fingerprint
    assert quarantined(folder) == {}
    assert capsys.readouterr().out.splitlines() == [
        "data   photos (class folders): 48 pictures (24 train, 24 test), 2 classes",
        "report validation/photos/report.html",
    ]


def put_faults(root: Path) -> None:
    (root / "train" / "cat" / "empty.png").touch()
    (root / "train" / "cat" / "notes.jpg").write_text("no picture")
    cut = root / "train" / "dog" / "0.png"
    cut.write_bytes(cut.read_bytes()[:-700])
    shutil.copy(root / "test" / "cat" / "1.png", root / "train" / "cat" / "leak.png")
    shutil.copy(root / "train" / "dog" / "5.png", root / "train" / "cat" / "conflict.png")
    shutil.copy(root / "train" / "cat" / "7.png", root / "train" / "cat" / "again.png")


def test_every_fault_is_found_and_named(command: Command, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_faults(folder)
    code, report = run(command, folder)
    assert code == 1
    assert kinds(report) == {"corrupt": 3, "conflict": 1, "leak": 1, "repeat": 1}
    assert files(report, "corrupt") == [{"train/cat/empty.png"}, {"train/cat/notes.jpg"}, {"train/dog/0.png"}]
    assert files(report, "conflict") == [{"train/cat/conflict.png", "train/dog/5.png"}]
    assert files(report, "leak") == [{"test/cat/1.png", "train/cat/leak.png"}]
    assert files(report, "repeat") == [{"train/cat/7.png", "train/cat/again.png"}]
    reasons = quarantined(folder)
    assert reasons["train/cat/leak.png"] == "the same as test/cat/1.png"
    assert reasons["train/cat/empty.png"] == "corrupt: expected an image file, received no bytes"
    assert set(reasons) == {
        "train/cat/empty.png", "train/cat/notes.jpg", "train/dog/0.png", "train/cat/leak.png", "train/cat/conflict.png",
        "train/dog/5.png", "train/cat/again.png",
    }  # fmt: skip
    told = capsys.readouterr().out
    assert "error: 3 files are no usable pictures; training would stop at them" in told
    assert "names 7 pictures; leave them out with --quarantine validation/photos/quarantine.json" in told


def test_training_goes_on_without_what_is_listed(command: Command, folder: Path) -> None:
    put_faults(folder)
    run(command, folder)
    kept = folder.parent / "kept.json"
    shutil.move("validation/photos/quarantine.json", kept)
    data = load(TrainSettings.parse({"data": str(folder), "quarantine": str(kept)}))
    assert data.record["quarantine"] == {"file": "kept.json", "left_out": 7}
    code, report = run(command, folder, "--quarantine", str(kept), "--strict")
    assert (code, report["findings"], report["pictures"]) == (0, [], 46)
    assert report["fingerprint"] == data.fingerprint


def photo(seed: int, side_px: int = 96) -> Image.Image:
    """Draws something like a photograph: large smooth shapes and some detail."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (side_px, side_px), Image.Resampling.BICUBIC
    )
    detail = Image.fromarray(random.integers(0, 256, (side_px // 4, side_px // 4, 3), dtype=np.uint8))
    return Image.blend(coarse, detail.resize((side_px, side_px)), 0.15)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "photos"
    for number, place in enumerate(f"{split}/{label}" for split in ("train", "test") for label in ("cat", "dog")):
        (root / place).mkdir(parents=True)
        for seed in range(number * 20, number * 20 + 20):
            photo(seed).save(root / place / f"{seed}.png")
    monkeypatch.chdir(tmp_path)
    return root


def test_look_alikes_are_found_whatever_was_done_to_them(command: Command, photos: Path) -> None:
    photo(0).save(photos / "test" / "cat" / "compressed.jpg", quality=40)
    photo(1).resize((50, 50)).save(photos / "test" / "cat" / "smaller.png")
    ImageEnhance.Brightness(photo(2)).enhance(0.7).save(photos / "train" / "cat" / "darker.png")
    photo(20).filter(ImageFilter.GaussianBlur(1.5)).save(photos / "train" / "cat" / "blurred.png")
    code, report = run(command, photos)
    assert code == 0
    assert report["warnings"] == 2
    assert kinds(report) == {"alike-leak": 2, "alike-conflict": 1, "alike": 1, "sizes": 1}
    assert {frozenset(group) for group in files(report, "alike-leak")} == {
        frozenset({"test/cat/compressed.jpg", "train/cat/0.png"}),
        frozenset({"test/cat/smaller.png", "train/cat/1.png"}),
    }
    assert files(report, "alike-conflict") == [{"train/cat/blurred.png", "train/dog/20.png"}]
    assert files(report, "alike") == [{"train/cat/darker.png", "train/cat/2.png"}]
    assert quarantined(photos) == {}
    assert run(command, photos, "--strict")[0] == 1


def test_look_alikes_of_the_test_are_listed_on_request(command: Command, photos: Path) -> None:
    photo(0).save(photos / "test" / "cat" / "compressed.jpg", quality=40)
    run(command, photos, "--quarantine-alike")
    assert quarantined(photos) == {"train/cat/0.png": "looks like test/cat/compressed.jpg"}


def test_no_look_alikes_on_request(command: Command, photos: Path) -> None:
    photo(0).save(photos / "test" / "cat" / "compressed.jpg", quality=40)
    assert kinds(run(command, photos, "--alike-bits", "-1")[1]) == {}


def test_uneven_classes_and_colours_are_told(command: Command, folder: Path) -> None:
    for number in range(9):
        (folder / "train" / "dog" / f"{number}.png").unlink()
    with Image.open(folder / "test" / "cat" / "0.png") as picture:
        picture.convert("L").save(folder / "test" / "cat" / "0.png")
    code, report = run(command, folder)
    assert code == 0
    texts = {finding["kind"]: finding["text"] for finding in report["findings"]}
    assert set(texts) == {"balance", "small-class", "modes"}
    assert texts["balance"].startswith("the classes of train are uneven: 12 pictures of cat, 3 of dog;")
    assert texts["small-class"] == "1 classes of train have fewer than 10 usable pictures: dog"
    assert texts["modes"].startswith("1 of 39 pictures are grey")


def test_a_folder_without_splits(command: Command, folder: Path) -> None:
    root = folder / "train"
    shutil.copy(root / "cat" / "0.png", root / "cat" / "again.png")
    code = command("validate", "--data", str(root), "--out", "here")
    report = json.loads(Path("here/report.json").read_text())
    assert (code, kinds(report)) == (0, {"repeat": 1})
    assert report["classes"] == {"all": {"cat": 13, "dog": 12}}
    assert json.loads(Path("here/quarantine.json").read_text())["files"] == [
        {"file": "cat/again.png", "reason": "the same as cat/0.png"}
    ]


@pytest.mark.slow
def test_the_embedded_digits(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("validate", "--data", "digits") == 0
    report = json.loads(Path("validation/digits/report.json").read_text())
    assert (report["pictures"], report["errors"], report["modes"]) == (1797, 0, {"L": 1797})


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_everything_and_names_are_only_text(command: Command, folder: Path) -> None:
    put_faults(folder)
    evil = "<script>alert(1)</script>"
    (folder / "train" / "cat" / evil.replace("/", "∕")).write_bytes(b"")
    (folder / "train" / "cat" / "&quot;.png").write_bytes((folder / "train" / "cat" / "7.png").read_bytes())
    run(command, folder)
    text = Path("validation/photos/report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert page.links  # thumbnails, each of them in the page itself
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "&amp;quot;.png" in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--alike-bits", "17"), "error: --alike-bits: expected -1 to 16; received '17'"),
        (("--alike-correlation", "1.5"), "error: --alike-correlation: expected 0 to 1; received '1.5'"),
        (("--quarantine", "missing.json"), "error: --quarantine: expected a list"),
        (("--out", "photos/train/cat/0.png"), "error: cannot write to photos/train/cat/0.png"),
    ],
)
def test_bad_flags(
    command: Command, folder: Path, flags: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("validate", "--data", str(folder), *flags) == 2
    assert capsys.readouterr().err.startswith(words)


def test_missing_data_are_bad_input(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("validate", "--data", str(tmp_path / "none")) == 2
    assert capsys.readouterr().err.startswith("error: no data folder")


def test_look_alikes_are_those_of_comparing_all_with_all() -> None:
    random = np.random.default_rng(0)
    originals = random.integers(0, 256, (60, 16, 16)).astype(np.float32)
    changed = originals[random.integers(0, 60, 120)] + random.normal(0, 25, (120, 16, 16))
    signatures = np.clip(np.concatenate([originals, changed]), 0, 255).astype(np.uint8)
    hashed = validation_duplicates.hashes(signatures)
    flat = signatures.reshape(180, -1).astype(np.float64)
    correlations = np.corrcoef(flat)
    for bits in (0, 3, 10):
        near = np.bitwise_count(hashed[:, None] ^ hashed[None, :]) <= bits
        expected = {tuple(pair) for pair in np.argwhere(np.triu(near & (correlations >= 0.7), 1)).tolist()}
        found = validation_duplicates.alike(signatures, max_bits=bits, min_correlation=0.7, max_pairs=10_000).tolist()
        assert {tuple(pair) for pair in found} == expected
        assert len(found) == len(expected)
        closeness = [correlations[first, second] for first, second in found]
        assert closeness == pytest.approx(sorted(closeness, reverse=True))
    assert len(expected) > 100


def test_plain_pictures_look_like_nothing() -> None:
    signatures = np.full((300, 16, 16), 7, dtype=np.uint8)
    assert len(validation_duplicates.alike(signatures, max_bits=8, min_correlation=0.5, max_pairs=9)) == 0


def test_pairs_are_bounded() -> None:
    signatures = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16), dtype=np.uint8), 300, axis=0)
    assert len(validation_duplicates.alike(signatures, max_bits=2, min_correlation=0.5, max_pairs=1000)) == 1000
