"""The one door to data: sizes, channels, splits, fractions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.training.finished_run import FACTS
from training import runs
from training.data.loading import Split, changed_since, load
from training.data.reading import decode
from training.errors import TrainingError
from training.settings import TrainSettings


def settings(data: Path | str, **values: object) -> TrainSettings:
    return TrainSettings.parse({"data": str(data), **values})


def names(split: Split) -> set[str]:
    return {item.place for item in split.items}


def test_takes_the_pictures_own_size(make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = load(settings(make_folder(size_px=(6, 10))))
    assert data.image.shape == (6, 10, 3)
    assert data.train.rows.shape[1:] == (6, 10, 3)
    assert data.train.rows.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert "note:" not in capsys.readouterr().out


def test_differing_sizes_become_the_default(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder()
    Image.new("RGB", (9, 20)).save(root / "train" / "cat" / "0.png")
    assert load(settings(root)).image.shape == (64, 64, 3)
    assert "note: the pictures have 2 different sizes, the longest side 20 pixels; resizing all to 64x64" in (
        capsys.readouterr().out
    )


def test_photographs_of_one_size_become_the_default(make_folder: Callable[..., Path]) -> None:
    assert load(settings(make_folder(size_px=(4, 257), count=2))).image.shape == (64, 64, 3)


def test_asked_size_and_channels_win(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    assert load(settings(root, image_size="12x16", channels="1")).image.shape == (12, 16, 1)
    assert load(settings(root, image_size="5")).image.shape == (5, 5, 3)


def test_grey_pictures_have_one_channel(make_folder: Callable[..., Path]) -> None:
    assert load(settings(make_folder(mode="L"))).image.channels == 1


def test_rows_belong_to_their_files(make_folder: Callable[..., Path]) -> None:
    data = load(settings(make_folder(count=10)))
    for split in (data.train, data.validation, data.test):
        for row, label, item in zip(split.rows, split.labels, split.items, strict=True):
            assert np.array_equal(row, decode([item], data.image, "")[0])
            assert item.place.split("/")[-2] == data.labels[label]


def test_validation_is_drawn_from_train_by_seed(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=20)
    first, again, other = (load(settings(root, validation_fraction=0.2, seed=seed)) for seed in (1, 1, 2))
    assert names(first.validation) == names(again.validation)
    assert names(first.validation) != names(other.validation)
    assert not names(first.validation) & names(first.train)
    assert np.bincount(first.validation.labels).tolist() == [4, 4]
    assert np.bincount(first.train.labels).tolist() == [16, 16]
    assert first.fingerprint == other.fingerprint


def test_given_validation_split_is_taken_as_it_is(make_folder: Callable[..., Path]) -> None:
    data = load(settings(make_folder(splits=("train", "validation", "test"), count=3)))
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (6, 6, 6)


def test_fraction_thins_training_only(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=20)
    whole, half = load(settings(root)), load(settings(root, fraction=0.5))
    assert names(half.train) < names(whole.train)
    assert np.bincount(half.train.labels).tolist() == [9, 9]
    assert names(half.validation) == names(whole.validation)
    assert names(half.test) == names(whole.test)
    assert half.fingerprint == whole.fingerprint


def test_fraction_that_leaves_a_class_empty(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"expected training pictures of every class, received none of (cat|dog)"):
        load(settings(make_folder(), fraction=0.01))


@pytest.mark.slow
def test_digits_are_the_embedded_default() -> None:
    first, other = load(TrainSettings()), load(TrainSettings(seed=9))
    assert first.source == "digits"
    assert first.labels == tuple("0123456789")
    assert first.image.shape == (8, 8, 1)
    assert (len(first.train.labels), len(first.validation.labels), len(first.test.labels)) == (1294, 144, 359)
    assert (first.train.rows.min(), first.train.rows.max()) == (0, 255)
    assert names(first.test) == names(other.test)
    assert names(first.validation) != names(other.validation)
    assert min(np.bincount(first.test.labels)) >= 34


@pytest.mark.slow
def test_digits_are_scikit_learns_scans_times_255_over_16() -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import)

    scans = load_digits()
    test = load(TrainSettings()).test
    for row, label, item in zip(test.rows, test.labels, test.items, strict=True):
        index = int(item.name.removesuffix(".png"))
        assert label == scans.target[index]
        assert np.array_equal(row[:, :, 0], np.rint(scans.images[index] * 255 / 16).astype(np.uint8))


def test_a_folder_without_splits_is_divided_and_recorded(make_folder: Callable[..., Path]) -> None:
    root = make_folder(splits=("all photos",), count=40) / "all photos"
    first, again, other = (load(settings(root, name="photos", split_seed=seed)) for seed in (0, 0, 1))
    for split, count in (("train", 28), ("validation", 6), ("test", 6)):
        part = getattr(first, split)
        assert np.bincount(part.labels).tolist() == [count, count]
        assert names(part) == names(getattr(again, split))
        assert names(part) != names(getattr(other, split))
    assert not names(first.train) & names(first.test)
    assert first.record["split"] == {
        "by": "split_seed", "seed": 0, "shares": {"test": 0.15, "validation": 0.15, "train": 0.7},
    }  # fmt: skip
    assert first.record["rows"] == {"train": 56, "validation": 12, "test": 12}
    assert first.record["members"] == again.record["members"]
    assert first.record["members"]["test"] != other.record["members"]["test"]
    assert first.fingerprint == other.fingerprint  # the same data, differently divided


def test_the_training_seed_does_not_move_the_division(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=20) / "train"
    assert names(load(settings(root, seed=1)).test) == names(load(settings(root, seed=2)).test)


def test_too_few_pictures_to_divide(make_folder: Callable[..., Path]) -> None:
    root = make_folder(splits=("all",), count=3) / "all"
    load(settings(root))
    (root / "dog" / "1.png").write_bytes((root / "dog" / "0.png").read_bytes())  # a copy is no further picture
    with pytest.raises(TrainingError, match=r"at least 3 different pictures in every class of 'all'.* fewer in dog;"):
        load(settings(root))


def test_what_is_recorded_of_data_with_splits(make_folder: Callable[..., Path]) -> None:
    record = load(settings(make_folder(count=10), seed=3)).record
    assert {key: record[key] for key in ("source", "form", "fraction", "quarantine")} == {
        "source": "photos", "form": "class folders", "fraction": 1.0, "quarantine": None,
    }  # fmt: skip
    assert record["split"] == {"by": "data", "validation": {"by": "seed", "seed": 3, "share_of_train": 0.1}}
    assert json.loads(json.dumps(record)) == record
    given = load(settings(make_folder_again(make_folder), seed=3)).record
    assert given["split"] == {"by": "data"}


def make_folder_again(make_folder: Callable[..., Path]) -> Path:
    root = make_folder(splits=("extra",))
    for split in ("train", "val", "test"):
        shutil.copytree(root / "extra", root / "inner" / split)
    return root / "inner"


def test_a_changed_data_set_is_noticed(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, made = make_folder(), tmp_path / "runs"
    before = load(settings(root, runs=made))
    with runs.draft(made, "photos") as folder:
        runs.publish(folder, FACTS | {"data": {"fingerprint": before.fingerprint}})
    load(settings(root, runs=made))
    load(settings(root, runs=made, name="another"))
    assert "changed" not in capsys.readouterr().out
    (root / "train" / "cat" / "0.png").unlink()
    after = load(settings(root, runs=made))
    assert f"note: the data have changed since the run photos/1 ({before.fingerprint[:19]}…, now" in (
        capsys.readouterr().out
    )
    assert changed_since(made, "photos", before.fingerprint) is None
    assert changed_since(made, "photos", after.fingerprint) is not None
    assert changed_since(made, "none", after.fingerprint) is None
