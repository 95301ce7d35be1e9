"""Groups of weights: which decay, which learn faster, what averaging and lookahead leave."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.images import ImageSpec
from training.recipe import Recipe, resolve
from training.settings import TrainSettings

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import


def recipe(**given: Any) -> Recipe:
    given = {
        "optimizer": "sgd",
        "momentum": 0,
        "learning_rate": 0.5,
        "schedule": "constant",
        "weight_decay": 0,
        **given,
    }
    return replace(resolve(TrainSettings(**given), {}, precision="float32", image=ImageSpec(8, 8, 1)), warmup=0.0)


def stepped(decided: Recipe, gradient: float, steps: int = 1, total: int = 10) -> dict[str, np.ndarray]:
    """Takes steps by one gradient for every weight; every weight begins at 1."""
    import keras  # noqa: PLC0415

    from training import optimizers  # noqa: PLC0415

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = optimizers.make(decided, total)
    model.compile(optimizer)
    optimizers.build_for(optimizer, model)
    for _ in range(steps):
        optimizer.apply([np.full(tuple(v.shape), gradient, np.float32) for v in model.trainable_variables])
    return {variable.name: variable.numpy() for variable in model.trainable_variables}


def test_biases_and_norm_parameters_do_not_decay() -> None:
    for optimizer in ("sgd", "adamw"):
        weights = stepped(recipe(optimizer=optimizer, weight_decay=0.1), gradient=0)
        assert np.allclose(weights["kernel"], 1 - 0.5 * 0.1)
        assert {name for name, value in weights.items() if np.allclose(value, 1)} == {"bias", "gamma", "beta"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_of_normalisation_learn_faster(optimizer: str) -> None:
    moved = {
        name: 1 - value.mean() for name, value in stepped(recipe(optimizer=optimizer, bias_lr_factor=64), 0.01).items()
    }
    assert moved["beta"] == pytest.approx(64 * moved["kernel"], rel=1e-3)
    assert moved["bias"] == pytest.approx(moved["gamma"], rel=1e-3) == pytest.approx(moved["kernel"], rel=1e-3)


def test_lookahead_goes_back_part_of_the_way() -> None:
    # After step 10 of 10 (counted from 0: step 9) the weights are joined with those of step 5.
    plain = 1 - 0.5 * 0.1 * np.arange(1, 11)
    early = 0.95**5 * 0.4**3
    slow = early * 0 + (1 - early) * plain[4]
    ahead = slow - 0.5 * 0.1 * 5
    late = 0.95**5 * 0.9**3
    weights = stepped(recipe(lookahead=5), gradient=0.1, steps=10)
    assert weights["kernel"] == pytest.approx(np.full((3, 2), late * slow + (1 - late) * ahead), rel=1e-5)
    assert stepped(recipe(), 0.1, steps=10)["kernel"] == pytest.approx(np.full((3, 2), plain[9]), rel=1e-5)
