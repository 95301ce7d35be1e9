"""Keras's optimizers with groups of weights: what decays, what learns faster, what is averaged."""

from typing import Any, Final

import keras

from training import schedules
from training.recipe import Recipe

# After Jordan, 2024 (arXiv:2404.00498): the share that is taken back grows with the cube of the time gone, up to 0.95⁵.
_LOOKAHEAD_END: Final = 0.95**5


def make(recipe: Recipe, steps: int) -> Any:
    """Makes an optimizer; build it with `build_for`.

    Args:
        recipe: Decides everything.
        steps: Of the whole training.
    """
    shared = {
        "learning_rate": schedules.learning_rate(recipe, steps),
        "weight_decay": recipe.weight_decay or None,
        "use_ema": recipe.ema > 0,
        "ema_momentum": recipe.ema,
    }
    if recipe.optimizer == "sgd":
        own = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
        return _grouped(keras.optimizers.SGD, recipe, steps, **shared, **own)
    # AdamW is Adam with decay apart from the gradient, which in Keras every optimizer's weight_decay is.
    return _grouped(keras.optimizers.Adam, recipe, steps, **shared, beta_1=recipe.momentum)


def build_for(optimizer: Any, model: Any) -> None:
    """Makes the optimizer's variables, so that a checkpoint can be loaded into them before the first step.

    Biases and the scales of normalisation layers do not decay: they are few, and zero is not where they belong (He et
    al., 2019, arXiv:1812.01187, section 3.1).
    """
    single = [variable for variable in model.trainable_variables if len(variable.shape) <= 1]
    optimizer.exclude_from_weight_decay(var_list=single)
    optimizer.build(model.trainable_variables)


def _grouped(base: type[Any], recipe: Recipe, steps: int, **settings: Any) -> Any:
    class Grouped(base):  # type: ignore[misc]  # Keras is untyped
        """One of Keras's optimizers with a faster learning rate for some weights, and lookahead."""

        def build(self, variables: Any) -> None:
            """Makes the variables; see Keras."""
            if self.built:
                return
            super().build(variables)
            self._faster = tuple(index for index, variable in enumerate(variables) if variable.name == "beta")
            self._slow = self.add_optimizer_variables(variables, "slow") if recipe.lookahead else []

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Updates one weight; see Keras."""
            index = self._get_variable_index(variable)
            factor = recipe.bias_lr_factor if index in self._faster else 1.0
            super().update_step(gradient, variable, learning_rate * factor)
            if recipe.lookahead:
                self._look_ahead(variable, self._slow[index])

        def finalize_variable_values(self, var_list: Any) -> None:
            """Does nothing: Keras would put the average in place of the weights whenever `fit` ends."""

        def _look_ahead(self, variable: Any, slow: Any) -> None:
            ops = keras.ops
            due = ops.equal((self.iterations + 1) % recipe.lookahead, 0)
            back = _LOOKAHEAD_END * (ops.cast(self.iterations, "float32") / steps) ** 3
            before, now = ops.convert_to_tensor(slow), ops.convert_to_tensor(variable)
            met = before * back + now * (1 - back)
            self.assign(slow, ops.where(due, met, before))
            self.assign(variable, ops.where(due, met, now))

    return Grouped(**settings)
