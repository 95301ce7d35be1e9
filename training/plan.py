"""Everything that is decided before the first step: settings, recipe, model, data, precision."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import keras

from training import console, devices, layers, models, provenance, recipe
from training.data.loading import Dataset
from training.models import Architecture
from training.recipe import Recipe
from training.settings import TrainSettings, parse_model_settings


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before the first step.

    Args:
        settings: The user's.
        recipe: How to train, nothing left open.
        architecture: Of the registry, or the user's own.
        model_settings: The architecture's own.
        data: What to learn from.
    """

    settings: TrainSettings
    recipe: Recipe
    architecture: Architecture
    model_settings: Any
    data: Dataset

    def build(self) -> Any:
        """Builds the float32 model that is saved, with fresh weights."""
        return self.architecture.build(self.model_settings, self.data.image, len(self.data.labels))

    def build_for_training(self) -> Any:
        """Builds the same model as fast as it can be trained: in the recipe's precision, with fused layers.

        Its weights are float32 too, and in the same order. Those that follow from the data are set.
        """
        policy = "mixed_bfloat16" if self.recipe.precision == "bfloat16" else "float32"
        with dtype_policy(policy), layers.training_build():
            model = self.build()
        self.architecture.prepare(model, self.data.train.rows)
        return model

    @property
    def key(self) -> str:
        """Names all that the run depends on: an unfinished run of the same key can be continued."""
        data, settings = self.data, self.settings
        parts = {
            "recipe": asdict(self.recipe),
            "model": settings.model,
            "model_settings": asdict(self.model_settings),
            "image": asdict(data.image),
            "labels": data.labels,
            "data": [data.fingerprint, data.record.get("members")],
            "rows": [len(split.labels) for split in (data.train, data.validation, data.test)],
            "split": [settings.validation_fraction, settings.split_seed, settings.fraction],
            "seed": settings.seed,
            "deterministic": settings.deterministic,
            "framework": provenance.framework(),
        }
        return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]


def make(settings: TrainSettings, data: Dataset) -> Plan:
    """Decides what the user left open, and tells what was decided.

    Raises:
        TrainingError: The settings of the model are not usable.
    """
    plan = decide(settings, data)
    _announce(plan)
    return plan


def decide(settings: TrainSettings, data: Dataset) -> Plan:
    """Decides what the user left open.

    Raises:
        TrainingError: The settings of the model are not usable.
    """
    architecture = models.get(settings.model)
    model_settings = parse_model_settings(architecture.settings, settings.set)
    precision = architecture.precision if devices.has_bfloat16() else "float32"
    decided = recipe.resolve(settings, architecture.recipe, precision=precision, image=data.image)
    return Plan(settings, decided, architecture, model_settings, data)


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Sets what layers compute in, for those made inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _announce(plan: Plan) -> None:
    data, image, chosen = plan.data, plan.data.image, plan.recipe
    console.say(
        f"data   {data.source}: {len(data.train.labels):,} to train, {len(data.validation.labels):,} to validate,"
        f" {len(data.test.labels):,} to test; {len(data.labels)} classes; {image.height_px}x{image.width_px}x"
        f"{image.channels} pixels"
    )
    console.say(f"model  {plan.settings.model}, {chosen.precision}, augmentation {chosen.augment}")
    console.say(
        f"recipe {chosen.optimizer}, learning rate {chosen.learning_rate:g} ({chosen.schedule}), weight decay"
        f" {chosen.weight_decay:g}, batches of {chosen.batch_size}, {chosen.epochs} epochs, {chosen.keep} kept"
    )
    note = plan.architecture.note(plan.model_settings, image)
    if note:
        console.say(f"note: {note}")
