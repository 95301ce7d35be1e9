"""Files become hashes, sizes and pixels; faults are told by name."""

import hashlib
import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.images import ImageSpec
from training.data import folders
from training.data.catalogue import Catalogue, Item
from training.data.reading import decode, decoded, survey
from training.errors import TrainingError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def two_classes(*contents: bytes) -> Catalogue:
    """The given pictures in class a, a plain grey one in class b, the same in both splits."""
    plain = encoded(Image.new("L", (8, 8), 7))
    items = [
        Item(split, label, f"{index}.png", content)
        for split in ("train", "test")
        for label, files in enumerate((contents, (plain,)))
        for index, content in enumerate(files)
    ]
    return Catalogue("tiny", ("a", "b"), tuple(items))


def test_fingerprint_is_defined_by_sorted_names_and_contents(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=("10", "9"), count=2)
    files = sorted((file.parent.parent.name, file.parent.name, file.name, file) for file in root.glob("*/*/*"))
    text = "".join(
        f"{split}\0{label}\0{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        for split, label, name, file in files
    )
    expected = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    assert survey(folders.catalogue(root)).fingerprint == expected


def test_fingerprint_is_the_same_for_the_same_contents_elsewhere(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    before = survey(folders.catalogue(root)).fingerprint
    moved = root.rename(root.with_name("moved"))
    assert survey(folders.catalogue(moved)).fingerprint == before
    assert before.startswith("sha256:")
    assert len(before) == len("sha256:") + 64


def test_fingerprint_does_not_depend_on_the_order_of_files(make_folder: Callable[..., Path]) -> None:
    catalogue = folders.catalogue(make_folder())
    shuffled = list(catalogue.items)
    random.Random(1).shuffle(shuffled)
    assert survey(replace(catalogue, items=tuple(shuffled))).fingerprint == survey(catalogue).fingerprint


def test_fingerprint_changes_when_one_byte_changes(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    before = survey(folders.catalogue(root)).fingerprint
    file = root / "test" / "dog" / "3.png"
    file.write_bytes(file.read_bytes() + b"\0")
    assert survey(folders.catalogue(root)).fingerprint != before


@pytest.mark.parametrize("target", ["test/dog/renamed.png", "train/dog/9.png", "test/cat/9.png"])
def test_fingerprint_changes_when_a_file_is_renamed_or_moved(make_folder: Callable[..., Path], target: str) -> None:
    root = make_folder()
    before = survey(folders.catalogue(root)).fingerprint
    (root / "test" / "dog" / "3.png").rename(root / target)
    assert survey(folders.catalogue(root)).fingerprint != before


def test_sizes_are_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    sideways = encoded(Image.new("RGB", (12, 8)), "JPEG", exif=exif)
    assert survey(two_classes(sideways)).sizes_px == {(12, 8), (8, 8)}


@pytest.mark.parametrize(
    ("mode", "grey"), [("L", True), ("1", True), ("I;16", True), ("LA", True), ("RGB", False), ("P", False)]
)
def test_grey_only_if_every_picture_has_one_channel(mode: str, *, grey: bool) -> None:
    assert survey(two_classes(encoded(Image.new(mode, (8, 8))))).grey is grey


def test_decodes_in_order() -> None:
    shades = (0, 50, 100, 150, 200, 250)
    items = [Item("train", 0, f"{shade}.png", encoded(Image.new("L", (5, 4), shade))) for shade in shades] * 40
    rows = decode(items, ImageSpec(4, 5, 1), "decoding")
    assert rows.shape == (240, 4, 5, 1)
    assert rows.dtype == np.uint8
    assert rows[:, 0, 0, 0].tolist() == list(shades) * 40


def test_text_named_jpg_is_named(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "train" / "cat" / "notes.jpg").write_text("no picture at all")
    with pytest.raises(TrainingError, match=r"1 file is no usable picture: .*train/cat/notes\.jpg \(expected a JPEG"):
        survey(folders.catalogue(root))


def test_truncated_picture_is_named_when_decoded(make_folder: Callable[..., Path]) -> None:
    root = make_folder(size_px=(64, 64))
    file = root / "test" / "dog" / "2.png"
    file.write_bytes(file.read_bytes()[:-2000])
    items = folders.catalogue(root).of("test")
    with pytest.raises(TrainingError, match=r"test/dog/2\.png \(the picture cannot be decoded.*remove or replace it"):
        decode(items, ImageSpec(8, 8, 3), "decoding")


def test_many_faults_are_counted_and_five_named() -> None:
    with pytest.raises(TrainingError) as caught:
        survey(two_classes(*[b""] * 4))
    message = str(caught.value)
    assert message.startswith("8 files are no usable pictures: test/0.png (expected an image file, received no bytes);")
    assert message.endswith("and 3 more; remove or replace them")
    assert message.count("received no bytes") == 5
    assert "\n" not in message


def test_unreadable_file_is_named(make_folder: Callable[..., Path]) -> None:
    catalogue = folders.catalogue(make_folder())
    gone = next(item for item in catalogue.items if isinstance(item.content, Path))
    assert isinstance(gone.content, Path)
    gone.content.unlink()
    with pytest.raises(TrainingError, match="No such file"):
        survey(catalogue)


def test_decoding_does_not_run_ahead_of_what_takes_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    content = encoded(Image.new("L", (4, 4)))

    def note(item: Item) -> bytes:
        read.append(item.name)
        return content

    monkeypatch.setattr(Item, "read", note)
    items = [Item("train", 0, f"{number}.png", b"") for number in range(2_000)]
    rows = decoded(items, ImageSpec(4, 4, 1), "decoding")
    for _ in range(100):
        next(rows)
    assert 100 <= len(read) <= 100 + 16 * (16 + 2 + 1)
    assert len(list(rows)) == 1_900
    assert len(read) == 2_000
