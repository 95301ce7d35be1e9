"""Data that exceed memory stay on disk: the same rows, written once, whole or not at all."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import memory, row_cache
from training.data.loading import Dataset, Split, load
from training.errors import TrainingError
from training.settings import TrainSettings


def loaded(root: Path, *, cache: Path | str = "", **values: object) -> Dataset:
    return load(TrainSettings.parse({"data": str(root), "runs": root.parent / "runs", "cache": str(cache), **values}))


def splits(data: Dataset) -> Iterator[Split]:
    return iter((data.train, data.validation, data.test))


def test_rows_on_disk_are_the_rows_in_memory(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(count=20)
    held, mapped = loaded(root), loaded(root, memory_limit_mb="0")
    for inside, outside in zip(splits(held), splits(mapped), strict=True):
        assert inside.in_memory
        assert not outside.in_memory
        assert isinstance(outside.rows, np.memmap)
        assert outside.rows.dtype == np.uint8
        assert np.array_equal(inside.rows, outside.rows)
        assert np.array_equal(inside.labels, outside.labels)
        assert not isinstance(outside.rows[[1, 0]], np.memmap)  # what is gathered is held in memory
    assert "note: the decoded pictures take 0 MB, more than memory allows" in capsys.readouterr().out
    assert len(list((root.parent / "runs" / ".cache").iterdir())) == 3


def test_limit_is_a_number_of_bytes(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=10, size_px=(100, 100))  # 40 pictures of 30,000 bytes
    assert not loaded(root, memory_limit_mb="1").train.in_memory
    assert loaded(root, memory_limit_mb="2").train.in_memory


def test_decoded_pictures_are_written_once(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(count=10)
    cache = root.parent / "elsewhere"
    first = loaded(root, memory_limit_mb="0", cache=cache)
    before = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(row_cache, "decoded", None)  # nothing is decoded again
        assert np.array_equal(first.train.rows, loaded(root, memory_limit_mb="0", cache=cache).train.rows)
    assert {file.name: file.stat().st_mtime_ns for file in cache.iterdir()} == before
    for change in ({"image_size": "9"}, {"seed": 1}, {"channels": "1"}):
        other = loaded(root, memory_limit_mb="0", cache=cache, **change)
        assert all(
            np.array_equal(one.rows, two.rows)
            for one, two in zip(splits(other), splits(loaded(root, **change)), strict=True)
        )
    (root / "train" / "cat" / "3.png").write_bytes((root / "train" / "cat" / "4.png").read_bytes())
    assert np.array_equal(loaded(root).train.rows, loaded(root, memory_limit_mb="0", cache=cache).train.rows)


def test_a_cut_off_file_is_written_again(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=10)
    first = loaded(root, memory_limit_mb="0")
    expected = np.array(first.train.rows)
    for file in (root.parent / "runs" / ".cache").iterdir():
        os.truncate(file, file.stat().st_size - 1)
    assert np.array_equal(loaded(root, memory_limit_mb="0").train.rows, expected)


def test_nothing_half_written_is_left_by_a_damaged_picture(make_folder: Callable[..., Path]) -> None:
    root = make_folder(size_px=(64, 64))
    file = root / "train" / "dog" / "2.jpg"
    with Image.open(root / "train" / "dog" / "1.png") as picture:
        picture.save(file)
    file.write_bytes(file.read_bytes()[:-1000])  # its header, which is read first, is whole
    with pytest.raises(TrainingError, match=r"train/dog/2\.jpg \(the picture cannot be decoded"):
        loaded(root, memory_limit_mb="0")
    assert list((root.parent / "runs" / ".cache").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_an_error(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(count=10)
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", **rest: real(Path("/dev/full") if mode == "wb" else self, mode, **rest)
    )
    with pytest.raises(TrainingError, match=r"cannot write the decoded pictures .*No space left.*; make room, name"):
        loaded(root, memory_limit_mb="0")
    assert list((root.parent / "runs" / ".cache").iterdir()) == []


def test_too_little_room_is_known_before_anything_is_decoded(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_cache, "_SLACK_BYTES", 1 << 60)
    monkeypatch.setattr(row_cache, "decoded", None)
    with pytest.raises(TrainingError, match=r"expected 1,152,921,504,607 MB free there, found .* MB\); make room"):
        loaded(make_folder(), memory_limit_mb="0")


def test_a_cache_that_cannot_be_written(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root.parent / "file").write_text("no folder")
    with pytest.raises(TrainingError, match=r"cannot write the decoded pictures .*; make room, name another folder"):
        loaded(root, memory_limit_mb="0", cache=root.parent / "file")


def test_a_limit_that_is_no_number() -> None:
    with pytest.raises(TrainingError, match=r"--memory-limit-mb: expected 'auto' or a whole number .* received '-1'"):
        TrainSettings.parse({"memory_limit_mb": "-1"})


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return folder


def test_available_is_the_lesser_of_machine_and_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\n")
    group = write(tmp_path / "group", memory_max="3000000\n", memory_current="2000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert memory.available_bytes(meminfo, group) == 1_500_000
    (group / "memory.max").write_text("max\n")
    assert memory.available_bytes(meminfo, group) == 8_192_000
    assert memory.available_bytes(meminfo, tmp_path / "none") == 8_192_000
    assert memory.available_bytes(tmp_path / "none", group) > 8_192_000  # elsewhere than on Linux: all there is


def test_automatic_limit_is_a_third_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 9_000)
    assert memory.limit_bytes("auto") == 3_000
    assert memory.limit_bytes("5") == 5_000_000
