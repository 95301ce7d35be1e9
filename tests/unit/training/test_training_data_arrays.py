"""Arrays as `keras.datasets` gives them: from an .npz file, or from Keras itself."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.loading import load
from training.data.reading import survey
from training.data.sources import catalogue_of
from training.errors import TrainingError
from training.settings import TrainSettings


def arrays(shape: tuple[int, ...] = (28, 28), count: int = 30) -> dict[str, Any]:
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for split, rows in (("train", count), ("test", count // 2)):
        found[f"x_{split}"] = random.integers(0, 256, (rows, *shape), dtype=np.uint8)
        found[f"y_{split}"] = np.arange(rows, dtype=np.uint8) % 3
    return found


def saved(path: Path, **changes: Any) -> str:
    content = arrays() | changes
    np.savez(path / "shapes.npz", **{name: array for name, array in content.items() if array is not None})
    return str(path / "shapes.npz")


def test_npz_in_the_form_of_keras(tmp_path: Path) -> None:
    data = load(TrainSettings.parse({"data": saved(tmp_path), "validation_fraction": 0.2, "runs": tmp_path / "runs"}))
    assert (data.source, data.labels, data.record["form"]) == ("shapes", ("0", "1", "2"), "npz")
    assert (data.image.shape, len(data.train.labels), len(data.test.labels)) == ((28, 28, 1), 24, 15)
    assert TrainSettings.parse({"data": saved(tmp_path)}).run_name == "shapes"


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
def test_shapes_of_pictures_and_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = arrays(shape)
    content["y_train"] = content["y_train"][:, None]  # as keras.datasets.cifar10 has them
    data = load(TrainSettings.parse({"data": saved(tmp_path, **content), "runs": tmp_path / "runs"}))
    assert data.image.shape == (5, 6, shape[2] if shape[2:] else 1)


def test_names_and_a_validation_split_may_be_added(tmp_path: Path) -> None:
    content = arrays()
    more = {"labels": np.array(["a", "b", "c"]), "x_val": content["x_test"], "y_val": content["y_test"]}
    catalogue = catalogue_of(saved(tmp_path, **more))
    assert (catalogue.labels, len(catalogue.of("validation"))) == (("a", "b", "c"), 15)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"x_test": None},
            r"arrays x_train, .* received x_train, y_test, y_train; save it again with x_test",
        ),
        (
            {"x_train": np.zeros((30, 4, 4))},
            r"uint8\[n, height, width\] .* train .* received float64\[30, 4, 4\]",
        ),
        ({"x_train": np.zeros((30, 3, 4, 4), np.uint8)}, r"received uint8\[30, 3, 4, 4\]; .* channels last"),
        ({"x_train": np.zeros((30, 0, 4), np.uint8)}, r"received uint8\[30, 0, 4\]"),
        ({"y_train": np.zeros(29, np.int64)}, r"one whole number per picture .* \[30\], received int64\[29\]"),
        ({"y_train": np.zeros(30)}, r"received float64\[30\]"),
        ({"y_train": np.arange(30) - 1}, r"expected labels of 0 or more in the train split .* received -1 to 28"),
        ({"labels": np.array(["a", "b"])}, r"expected labels of 0 to 1 \(2 classes\) .* received 0 to 2"),
        ({"labels": np.array(["a", "b", "c", "d"])}, r"every class of the train split of 'shapes', received none in d"),
        (
            {"y_train": np.zeros(30, int), "y_test": np.zeros(15, int)},
            r"at least 2 classes .* received 1 \(0\)",
        ),
        ({"x_train": np.array([{}] * 30)}, r"cannot read .*allow_pickle=False.*; expected plain arrays"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        catalogue_of(saved(tmp_path, **changes))


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(TrainingError, match=r"cannot read .*a\.npz .*; expected plain arrays saved by numpy\.savez"):
        catalogue_of(str(tmp_path / "a.npz"))


def test_fingerprint_of_arrays_is_of_their_pixels(tmp_path: Path) -> None:
    before = survey(catalogue_of(saved(tmp_path))).fingerprint
    assert survey(catalogue_of(saved(tmp_path))).fingerprint == before
    content = arrays()
    content["x_test"][3, 4, 5] ^= 1
    assert survey(catalogue_of(saved(tmp_path, **content))).fingerprint != before


def test_an_unknown_name_of_keras() -> None:
    with pytest.raises(TrainingError, match=r"expected keras: and one of mnist, .*; received 'keras:imagenet'"):
        catalogue_of("keras:imagenet")


@pytest.fixture
def keras_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points Keras, already imported or not, to a cache of its own, and away from any network."""
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "tensorflow"))
    from training.quiet import quiet_import  # noqa: PLC0415

    with quiet_import():
        import keras  # noqa: PLC0415
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path), raising=True)
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", _no_network)
    assert keras.config
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def _no_network(*_: object) -> None:
    raise OSError("no network in tests")


@pytest.mark.slow
def test_keras_loads_from_its_cache(
    keras_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content = arrays()
    content["y_train"], content["y_test"] = (np.arange(count, dtype=np.uint8) % 10 for count in (30, 15))
    np.savez(keras_cache / "mnist.npz", **content)
    # Keras knows the hash of the real file, which these thirty pictures do not have.
    monkeypatch.setattr("keras.src.utils.file_utils.validate_file", lambda *_, **__: True)
    data = load(TrainSettings.parse({"data": "keras:mnist", "runs": keras_cache / "runs"}))
    assert (data.source, data.labels, data.record["form"]) == ("mnist", tuple("0123456789"), "keras.datasets.mnist")
    order = [int(item.name.removesuffix(".png")) for item in data.test.items]
    assert np.array_equal(data.test.rows[..., 0], content["x_test"][order])
    assert TrainSettings.parse({"data": "keras:mnist"}).run_name == "mnist"


@pytest.mark.slow
def test_keras_without_a_network(keras_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match=r"Keras cannot load cifar100 \(no network in tests\); connect to a"):
        catalogue_of("keras:cifar100")
