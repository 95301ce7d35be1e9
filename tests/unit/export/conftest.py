"""A real run folder, made in seconds: a small CNN on scikit-learn's digits, written as training writes it."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export import quiet, verify
from export.golden import to_png
from export.pipeline import Result, create
from export.settings import ExportSettings, Gates

ENVIRONMENT = ("ORT_DISABLE_TELEMETRY", "TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES")
TRAIN_ROWS = 1_400


@pytest.fixture(scope="session", autouse=True)
def library_environment() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.setenv(name, "")
            patch.delenv(name)
        quiet.prepare_environment()
        patch.setattr(verify, "MAX_ROUNDS", 3)  # no test here asserts a speed
        yield


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pixels = np.clip(images * 16, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    return pixels[order], labels[order].astype(np.int64)


def train(keras: Any, pixels: NDArray[np.uint8], labels: NDArray[np.int64], *, pooled: bool = False) -> Any:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    blocks = []
    for filters in (8, 16):
        blocks += [layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.BatchNormalization()]
        blocks += [layers.ReLU(), layers.MaxPooling2D()]
    hidden = [layers.Flatten(), layers.Dense(32, activation="relu")]
    head = [*([layers.GlobalAveragePooling2D()] if pooled else hidden), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), *blocks, *head])
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pixels, labels, batch_size=50, epochs=8, verbose=0)
    return model


def write_run(folder: Path, model: Any, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    test_pixels, test_labels = pixels[TRAIN_ROWS:], labels[TRAIN_ROWS:]
    loss, accuracy = model.evaluate(test_pixels, test_labels, verbose=0)
    np.savez(folder / "calibration.npz", rows=pixels[:300], labels=labels[:300])
    np.savez(folder / "holdout.npz", rows=test_pixels, labels=test_labels)
    files = [to_png(row) for row in test_pixels[:4]]
    offsets = np.cumsum([0, *map(len, files)])
    encoded = np.frombuffer(b"".join(files), np.uint8)
    np.savez(folder / "samples.npz", encoded=encoded, offsets=offsets, labels=test_labels[:4])
    right = model.predict(test_pixels, verbose=0).argmax(1) == test_labels
    classes = [{"label": str(digit), "recall": float(right[test_labels == digit].mean())} for digit in range(10)]
    measured = {"accuracy": accuracy, "loss": loss, "classes": classes}
    (folder / "metrics.json").write_text(json.dumps({"test": measured}))
    (folder / "run.json").write_text(json.dumps(run_facts(model, len(test_labels))))


def run_facts(model: Any, test_rows: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "tiny",
        "run": 1,
        "model": "cnn",
        "image": {"height_px": 8, "width_px": 8, "channels": 1},
        "labels": [str(digit) for digit in range(10)],
        "seed": 1,
        "epochs": 6,
        "git_revision": "0" * 40,
        "parameters": model.count_params(),
        "framework": "keras (tensorflow)",
        "preprocessing": {"scale": 1 / 255, "offset": 0.0, "resize": "bilinear-antialias"},
        "data": {"source": "digits", "fingerprint": "sha256:0", "rows": {"train": TRAIN_ROWS, "test": test_rows}},
    }


@pytest.fixture(scope="session")
def keras(library_environment: None) -> Any:
    with quiet.noisy_library():
        return importlib.import_module("keras")


@pytest.fixture(scope="session")
def keras_model(keras: Any) -> Any:
    pixels, labels = digits()
    with quiet.noisy_library():
        return train(keras, pixels[:TRAIN_ROWS], labels[:TRAIN_ROWS])


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory, keras_model: Any) -> Path:
    """A folder of runs with `tiny/1`; tests that change it take `runs`."""
    root = tmp_path_factory.mktemp("trained")
    with quiet.noisy_library():
        write_run(root / "tiny" / "1", keras_model, *digits())
    return root


@pytest.fixture
def runs(trained_runs: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    shutil.copytree(trained_runs, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def roomy_gates() -> Gates:
    """Room for what 8 bits cost a model this small on another processor: 2 of its 397 rows are 0.5 points."""
    return Gates(max_accuracy_drop=0.02, max_class_drop=0.2, min_agreement=0.95)


@pytest.fixture(scope="session")
def exported(trained_runs: Path, tmp_path_factory: pytest.TempPathFactory, roomy_gates: Gates) -> Result:
    """One export of the trained run."""
    settings = ExportSettings(runs=trained_runs, models=tmp_path_factory.mktemp("models"))
    return create("tiny", "latest", settings, roomy_gates, lambda line: None)


@pytest.fixture(scope="session")
def exported_pooled(keras: Any, tmp_path_factory: pytest.TempPathFactory, roomy_gates: Gates) -> Result:
    """One export, with all variants, of a network that ends in global average pooling; its int8 may be refused."""
    root = tmp_path_factory.mktemp("pooled")
    pixels, labels = digits()
    with quiet.noisy_library():
        model = train(keras, pixels[:TRAIN_ROWS], labels[:TRAIN_ROWS], pooled=True)
        write_run(root / "runs" / "tiny" / "1", model, pixels, labels)
    settings = ExportSettings(
        runs=root / "runs", models=root / "models", variants=("float32", "int8", "float16"), sensitivity=False
    )
    return create("tiny", "latest", settings, roomy_gates, lambda line: None)
