"""The learning rate as a function of the step, and of the history where it waits for a plateau.

    cosine      ╱‾╲__    rise to the peak, half a cosine down (Loshchilov and Hutter, arXiv:1608.03983)
    one-cycle   ╱╲       from a fifth of the peak up to it, straight down (Smith and Topin, arXiv:1708.07120)
    constant    ╱‾‾‾     rise, then stay
    plateau     ‾‾╲_     halve when the validation loss stays

The position is the optimizer's own step counter, which checkpoints hold: a resumed training goes on where it was.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import keras

from training.recipe import Recipe

PLATEAU_EPOCHS: Final = 3  # with no lower validation loss, after which the learning rate is halved
SMALLEST_LEARNING_RATE: Final = 1e-6  # of the plateau
_CYCLE_START: Final = 0.2


class Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras is untyped
    """Rises linearly, then falls by the recipe's curve.

    Args:
        recipe: `schedule` other than "plateau", `learning_rate`, `warmup`, `final_lr_factor`.
        steps: Of the whole training.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self.recipe = recipe
        self.steps = steps
        self.rising_steps = round(recipe.warmup * steps)

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of a step, counted from 0."""
        ops = keras.ops
        now = ops.cast(step, "float32")
        start = _CYCLE_START if self.recipe.schedule == "one-cycle" else 0.0
        # The first step of a rise from zero is a step of 1/n, not of nothing.
        risen = (now + 1) / max(1, self.rising_steps)
        rising = start + (1 - start) * ops.minimum(risen, 1.0)
        gone = ops.clip((now + 1 - self.rising_steps) / max(1, self.steps - self.rising_steps), 0.0, 1.0)
        factor = ops.where(now < self.rising_steps, rising, self._falling(gone))
        return self.recipe.learning_rate * factor

    def _falling(self, gone: Any) -> Any:
        final = self.recipe.final_lr_factor
        match self.recipe.schedule:
            case "cosine":
                return final + (1 - final) * (1 + keras.ops.cos(math.pi * gone)) / 2
            case "one-cycle":
                return 1 - (1 - final) * gone
            case _:
                return keras.ops.ones_like(gone)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, as Keras asks of a schedule."""
        return {"recipe": self.recipe, "steps": self.steps}


def learning_rate(recipe: Recipe, steps: int) -> Any:
    """Makes what an optimizer takes as its learning rate: a schedule, or the first value of a plateau's."""
    return recipe.learning_rate if recipe.schedule == "plateau" else Schedule(recipe, steps)


def plateau(peak: float, val_losses: Sequence[float]) -> float:
    """Returns the learning rate after the epochs so far: halved whenever three of them brought no lower loss.

    Args:
        peak: The first learning rate.
        val_losses: One per epoch.
    """
    rate, best, waited = peak, math.inf, 0
    for loss in val_losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited == PLATEAU_EPOCHS:
            rate, waited = rate / 2, 0
    return max(rate, min(peak, SMALLEST_LEARNING_RATE))


def is_hopeless(patience: int, val_losses: Sequence[float]) -> bool:
    """Whether the validation loss has not fallen for `patience` epochs; 0 is endless patience."""
    if not patience or len(val_losses) <= patience:
        return False
    return min(val_losses[-patience:]) >= min(val_losses[:-patience])
