"""One trial: settings of its parameters, what they would cost, and a short training of them."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from training import devices, loop, pipeline, plan
from training.augmentation import Augmentation
from training.data.loading import Dataset
from training.loop import Epoch, Fitted
from training.plan import Plan
from training.settings import TrainSettings
from training.tuning import space
from training.tuning.cost import Meter
from training.tuning.settings import Job


def usual_augmentation(settings: TrainSettings, data: Dataset) -> Augmentation:
    """Returns what a model's recipe does to such pictures, which a trial's strengths are laid over."""
    return plan.decide(settings, data).recipe.augmentation


def settings_of(base: TrainSettings, values: Mapping[str, Any], data: Dataset) -> TrainSettings:
    """Makes the settings of a trial.

    Args:
        base: Those of all trials.
        values: The trial's parameters.
        data: To learn from.

    Raises:
        TrainingError: A value is out of bounds.
    """
    return space.with_changes(base, space.changes(values, usual_augmentation(base, data)))


class Candidate:
    """A trial's parameters, ready to be measured.

    Args:
        job: The search.
        values: The parameters.
        data: To learn from.

    Raises:
        TrainingError: Training does not accept them.
    """

    def __init__(self, job: Job, values: Mapping[str, Any], data: Dataset) -> None:
        keras.backend.clear_session()  # what the trial before left in memory
        gc.collect()
        self._plan: Plan = plan.decide(settings_of(job.proxy, values, data), data)

    def us_per_image(self, meter: Meter) -> float:
        """Measures what an image would cost in production."""
        return meter.us_per_image(self._plan.build())

    def train(self, folder: Path, on_epoch: Callable[[Epoch], None]) -> tuple[float, Fitted]:
        """Trains for the few epochs of a trial; nothing is kept, and the test split is not touched.

        Args:
            folder: For what is written meanwhile.
            on_epoch: Told of every epoch; what it raises ends the training.

        Returns:
            The validation accuracy of the weights that a training in full would keep, and the training.

        Raises:
            Diverged: The loss became infinite or no number.
            TrainingError: A batch does not fit into memory.
        """
        made, recipe = self._plan, self._plan.recipe
        scope = devices.scope(made.settings.devices)
        keras.utils.set_random_seed(made.settings.seed)
        classes = len(made.data.labels)
        feed = pipeline.Feed(
            made.data.train,
            classes,
            batch_size=recipe.batch_size,
            augmentation=recipe.augmentation,
            label_smoothing=recipe.label_smoothing,
            seed=made.settings.seed,
            is_timed=False,
        )
        with TemporaryDirectory(dir=folder) as scratch:
            fitted = loop.fit(
                made.build_for_training,
                feed,
                pipeline.plain_batches(made.data.validation, classes, batch_size=recipe.batch_size),
                recipe,
                loop.Places(checkpoints=None, tensorboard=Path(scratch)),
                scope=scope,
                callbacks=made.architecture.callbacks(made.model_settings),
                on_epoch=on_epoch,
            )
        return fitted.history[fitted.best_epoch - 1].val_accuracy, fitted
