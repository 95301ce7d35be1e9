"""What the user says counts most, then the architecture's recipe, then the defaults; schedules follow from it."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from server.images import ImageSpec
from training.errors import TrainingError
from training.recipe import Recipe, resolve
from training.settings import TrainSettings

COLOUR = ImageSpec(32, 32, 3)
OWN = {
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "schedule": "one-cycle",
    "warmup": 0.1,
    "epochs": 9,
    "precision": "bfloat16",
    "augment": "flip,crop,cutout=8",
    "bias_lr_factor": 64,
}


def decide(own: dict[str, Any] | None = None, image: ImageSpec = COLOUR, **given: Any) -> Recipe:
    return resolve(TrainSettings(**given), own or {}, precision="float32", image=image)


def test_defaults() -> None:
    recipe = decide()
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adamw", 1e-3, 0.05)
    assert (recipe.schedule, recipe.keep, recipe.patience, recipe.epochs) == ("cosine", "last", 0, 30)
    assert (recipe.augment, recipe.precision) == ("flip=0.5,crop=0.125", "float32")


def test_the_architectures_recipe_counts_more_than_a_default() -> None:
    recipe = decide(OWN)
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("sgd", 0.5, 5e-3)
    assert (recipe.warmup, recipe.epochs, recipe.precision, recipe.bias_lr_factor) == (0.1, 9, "bfloat16", 64)
    assert recipe.augment == "flip=0.5,crop=0.125,cutout=8"


def test_the_users_word_counts_most() -> None:
    recipe = decide(OWN, learning_rate=0.1, epochs=3, mixed_precision="float32", augment="none", weight_decay=0)
    assert (recipe.learning_rate, recipe.epochs, recipe.precision) == (0.1, 3, "float32")
    assert (recipe.augment, recipe.weight_decay, recipe.warmup) == ("none", 0, 0.1)


def test_what_was_tuned_for_another_optimizer_is_left_out() -> None:
    recipe = decide(OWN, optimizer="adam")
    assert (recipe.learning_rate, recipe.bias_lr_factor, recipe.weight_decay) == (1e-3, 1, 0)
    assert (recipe.schedule, recipe.warmup) == ("one-cycle", 0.1)


def test_what_was_tuned_for_another_schedule_is_left_out() -> None:
    recipe = decide(OWN, schedule="plateau")
    assert (recipe.warmup, recipe.keep, recipe.patience, recipe.learning_rate) == (0, "best", 8, 0.5)


@pytest.mark.parametrize(
    ("image", "augment"),
    [
        (ImageSpec(28, 28, 1), "crop=0.125,cutout=8"),  # a mirrored digit is none
        (ImageSpec(8, 8, 1), "none"),
        (ImageSpec(12, 64, 3), "none"),
    ],
)
def test_augmentation_fits_the_pictures(image: ImageSpec, augment: str) -> None:
    assert decide(OWN, image).augment == augment
    assert decide(OWN, image, augment="flip").augment == "flip=0.5"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"lerning_rate": 1}, "expected settings of training in the recipe of cnn, received 'lerning_rate'"),
        ({"data": "photos"}, "received 'data'"),
        ({"epochs": 0}, "--epochs: expected greater than or equal to 1"),
    ],
)
def test_recipe_of_an_architecture_is_checked(own: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        decide(own)


def rates(schedule: str, steps: int, **changed: Any) -> list[float]:
    from training.schedules import Schedule  # noqa: PLC0415 (imports Keras)

    recipe = replace(decide(schedule=schedule, learning_rate=2.0), **changed)
    return [float(Schedule(recipe, steps)(step)) for step in range(steps)]


@pytest.mark.slow
def test_cosine_rises_and_falls_to_zero() -> None:
    found = rates("cosine", 100, warmup=0.1)
    assert found[:10] == pytest.approx([2 * (step + 1) / 10 for step in range(10)])
    assert found[54] == pytest.approx(1, abs=1e-6)
    assert found[99] == pytest.approx(0, abs=1e-6)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert rates("cosine", 100, final_lr_factor=0.1)[99] == pytest.approx(0.2)


@pytest.mark.slow
def test_one_cycle_is_two_straight_lines() -> None:
    found = rates("one-cycle", 100, warmup=0.25, final_lr_factor=0.05)
    assert found[0] == pytest.approx(2 * (0.2 + 0.8 / 25))
    assert found[24] == pytest.approx(2)
    assert found[99] == pytest.approx(0.1)
    falls = [after - before for before, after in pairwise(found[25:])]
    assert falls == pytest.approx([falls[0]] * len(falls), rel=1e-3)


@pytest.mark.slow
def test_constant_stays_after_it_has_risen() -> None:
    assert rates("constant", 40, warmup=0.1) == pytest.approx([0.5, 1, 1.5, *[2] * 37])
    assert rates("constant", 3, warmup=0.0) == pytest.approx([2, 2, 2])


@pytest.mark.slow
def test_plateau_halves_after_three_epochs_without_a_lower_loss() -> None:
    from training.schedules import plateau  # noqa: PLC0415

    assert plateau(0.8, [3, 2, 1, 1, 1]) == 0.8
    assert plateau(0.8, [3, 2, 1, 1, 1, 1]) == 0.4
    assert plateau(0.8, [1, 1, 1, 1, 1, 1, 1]) == 0.2
    assert plateau(0.8, [1, 1, 1, 0.9, 1, 1]) == 0.8
    assert plateau(0.8, [1] * 1000) == 1e-6


@pytest.mark.slow
def test_patience_is_counted_from_the_lowest_loss() -> None:
    from training.schedules import is_hopeless  # noqa: PLC0415

    assert not is_hopeless(3, [3, 2, 1, 1, 1])
    assert is_hopeless(3, [3, 2, 1, 1, 1, 1])
    assert not is_hopeless(3, [3, 2, 1, 1, 1, 0.9])
    assert not is_hopeless(0, [1] * 1000)
