"""Fine-tuning under int8's rounding: a model that static int8 spoils is brought through the gates that refused it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export import convert, processor, qat, quiet
from export.pipeline import Result, create
from export.settings import ExportSettings, Gates
from tests.unit.export.conftest import TRAIN_ROWS, digits, write_run

pytestmark = pytest.mark.slow

FACTOR = 100.0  # two filters of each layer answer so many times more than the others: their range takes all 256 values
GATES = Gates(min_agreement=0.92, max_accuracy_drop=0.05, max_class_drop=0.3)


@pytest.fixture(scope="module")
def unbalanced(keras: Any) -> Any:
    """Every filter's factor is undone in the next kernel, so float32 answers as if there were none."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    first = layers.Conv2D(8, 3, padding="same", activation="relu")
    second = layers.Conv2D(16, 3, padding="same", activation="relu")
    hidden = layers.Dense(32, activation="relu")
    blocks = [first, layers.MaxPooling2D(), second, layers.MaxPooling2D(), layers.Flatten(), hidden]
    head = layers.Dense(10, activation="softmax")
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), *blocks, head])
    pixels, labels = digits()
    with quiet.noisy_library():
        model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(pixels[:TRAIN_ROWS], labels[:TRAIN_ROWS], batch_size=50, epochs=10, verbose=0)
        before = convert.predict(model, pixels[TRAIN_ROWS:])
        unbalance(first, second)
        unbalance(second, hidden)
        np.testing.assert_allclose(convert.predict(model, pixels[TRAIN_ROWS:]), before, atol=1e-4)
    return model


def unbalance(layer: Any, following: Any) -> None:
    kernel, bias = layer.get_weights()
    factors = np.ones(len(bias), np.float32)
    factors[:2] = FACTOR
    layer.set_weights([kernel * factors, bias * factors])
    kernel, bias = following.get_weights()
    by_channel = kernel.reshape(-1, len(factors), kernel.shape[-1]) / factors[:, None]
    following.set_weights([by_channel.reshape(kernel.shape), bias])


@pytest.fixture(scope="module")
def unbalanced_runs(unbalanced: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unbalanced")
    with quiet.noisy_library():
        write_run(root / "tiny" / "1", unbalanced, *digits())
    return root


def export(runs: Path, models: Path, epochs: int) -> Result:
    settings = ExportSettings(
        runs=runs,
        models=models,
        calibration="minmax",
        first_layer="int8",
        pixel_groups="off",
        sensitivity=False,
        qat_epochs=epochs,
    )
    return create("tiny", "latest", settings, GATES, lambda line: None)


def test_without_fine_tuning_the_model_is_refused_int8(unbalanced_runs: Path, tmp_path: Path) -> None:
    result = export(unbalanced_runs, tmp_path, 0)
    assert [one.name for one in result.manifest.variants] == ["float32"]
    (refused,) = result.report["refused"]
    assert refused["comparison"]["agreement"] < GATES.min_agreement


@pytest.mark.skipif(
    processor.saturates(), reason="7 bits, as on x86 without VNNI, are too few for so unbalanced a network"
)
def test_fine_tuning_brings_it_through_the_same_gates(unbalanced_runs: Path, tmp_path: Path) -> None:
    result = export(unbalanced_runs, tmp_path, 20)
    assert [one.name for one in result.manifest.variants] == ["float32", "int8"]
    assert result.report["variants"]["int8"]["recipe"] == "pixels-int8, minmax, fine-tuned for 20 epochs"
    assert result.report["variants"]["int8"]["comparison"]["agreement"] >= GATES.min_agreement
    tried = [one for one in result.report["tried"] if one["recipe"] == "pixels-int8, minmax"]
    assert tried[0]["reasons"]  # it was tried as it is first


def weights(model: Any) -> list[NDArray[np.float32]]:
    return [np.array(one) for one in model.get_weights()]


def test_a_residual_depthwise_network_is_copied_and_left_as_it_was(keras: Any) -> None:
    layers = keras.layers
    keras.utils.set_random_seed(2)
    pixels = layers.Input((8, 8, 1))
    start = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(pixels))
    branch = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(start))
    joined = layers.ReLU()(layers.Add()([start, branch]))
    answers = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(joined))
    model = keras.Model(pixels, answers)
    rows = digits()[0][:60]
    before = weights(model)
    tuned = qat.fine_tune(model, rows, epochs=2, learning_rate=1e-3)
    assert all(np.array_equal(one, other) for one, other in zip(before, weights(model), strict=True))
    changed = [not np.array_equal(one, other) for one, other in zip(before, weights(tuned), strict=True)]
    names = [variable.path.rpartition("/")[2] for variable in model.weights]
    statistics = {"moving_mean", "moving_variance"}
    assert {name for name, moved in zip(names, changed, strict=True) if not moved} <= statistics
    assert [type(layer) for layer in tuned.layers] == [type(layer) for layer in model.layers]


@pytest.mark.usefixtures("keras")
@pytest.mark.parametrize(("saturates", "largest"), [(False, 127), (True, 64)])
def test_rounding_is_what_int8_holds(*, saturates: bool, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "saturates", lambda: saturates)
    values = np.linspace(-1, 3, 4_001, dtype=np.float32)
    rounded = np.array(qat._round_values(values))
    assert len(np.unique(rounded)) == 256
    assert np.abs(rounded - values).max() <= 4 / 255 / 2 + 1e-6
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    by_channel = np.array(qat._round_kernel(kernel, [0, 1, 2]))
    steps = by_channel / (np.abs(kernel).max((0, 1, 2)) / largest)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert np.abs(steps).max() == pytest.approx(largest)
