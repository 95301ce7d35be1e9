"""The registry and the CNN's shape. Keras takes seconds to import, so it is imported when a test runs."""

import math
from typing import Any

import numpy as np
import pytest

from server.images import ImageSpec
from training import models
from training.errors import TrainingError


@pytest.fixture
def cnn() -> Any:
    return models.get("cnn")


def test_unknown_model() -> None:
    with pytest.raises(TrainingError, match="--model: expected one of cnn; received 'resnet9000'"):
        models.get("resnet9000")


@pytest.mark.slow
def test_every_registered_model_builds_and_predicts() -> None:
    for name in models.MODELS:
        architecture = models.get(name)
        model = architecture.build(architecture.settings(), ImageSpec(32, 32, 3), 7)
        rows = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        probabilities = np.asarray(model(rows, training=False))
        assert probabilities.shape == (3, 7)
        assert probabilities.dtype == np.float32
        assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert model.output_names == ["probabilities"]
        assert type(model.layers[1]).__name__ == "Rescaling"
        assert model.layers[1].scale == 1 / 255


@pytest.mark.slow
def test_cnn_has_the_published_number_of_parameters(cnn: Any) -> None:
    model = cnn.build(cnn.settings(), ImageSpec(32, 32, 3), 10)
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    normalisation = 4 * (32 + 64 + 128 + 256)
    dense = (1024 * 512 + 512) + (512 * 256 + 256) + (256 * 10 + 10)
    assert model.count_params() == convolutions + normalisation + dense == 1_048_554


@pytest.mark.slow
def test_cnn_blocks_are_conv_norm_relu_pool_dropout(cnn: Any) -> None:
    model = cnn.build(cnn.settings(), ImageSpec(32, 32, 3), 10)
    kinds = [type(layer).__name__ for layer in model.layers[2:22]]
    assert kinds == ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D", "Dropout"] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "blocks"),
    [((1, 9), 0), ((2, 2), 1), ((8, 8), 3), ((8, 64), 3), ((15, 15), 3), ((16, 16), 4), ((99, 99), 4)],
)
def test_cnn_uses_as_many_blocks_as_fit_and_says_so(cnn: Any, size: tuple[int, int], blocks: int) -> None:
    spec = ImageSpec(*size, 1)
    model = cnn.build(cnn.settings(), spec, 2)
    assert sum(type(layer).__name__ == "MaxPooling2D" for layer in model.layers) == blocks
    assert (f"the first {blocks} of 4 blocks" in cnn.note(cnn.settings(), spec)) == (blocks < 4)


@pytest.mark.slow
def test_cnn_averages_large_maps_rather_than_grow(cnn: Any) -> None:
    small = cnn.build(cnn.settings(), ImageSpec(64, 64, 3), 10).count_params()
    large = cnn.build(cnn.settings(), ImageSpec(224, 224, 3), 10).count_params()
    asked = cnn.build(cnn.settings(head="average"), ImageSpec(32, 32, 3), 10).count_params()
    assert large == asked == 1_048_554 - (1024 - 256) * 512
    assert small == 1_048_554 + (4096 - 1024) * 512


@pytest.mark.slow
def test_cnn_in_bfloat16_scales_and_answers_in_float32(cnn: Any) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = cnn.build(cnn.settings(), ImageSpec(32, 32, 3), 10)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("scale").compute_dtype == "float32"
    assert model.get_layer("block_1_conv").compute_dtype == "bfloat16"
    assert model.get_layer("probabilities").compute_dtype == "float32"
    assert math.prod(model.output.shape[1:]) == 10
