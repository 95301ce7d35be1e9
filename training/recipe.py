"""How a model is trained, decided: the user's flag counts most, then the architecture's recipe, then what is here.

TrainSettings (None: undecided) ─┐
Architecture.recipe ─────────────┼──▶ Recipe, with nothing left open ──▶ the loop, run.json
DEFAULTS ────────────────────────┘
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from server.images import ImageSpec
from training.augmentation import Augmentation
from training.errors import TrainingError
from training.settings import TrainSettings

# AdamW needs the least tuning from model to model, and a schedule that ends at zero gains more than any choice of an
# epoch before.
DEFAULTS: Final[Mapping[str, Any]] = {
    "epochs": 30,
    "batch_size": 64,
    "optimizer": "adamw",
    "momentum": 0.9,
    "bias_lr_factor": 1.0,
    "schedule": "cosine",
    "final_lr_factor": 0.0,
    "label_smoothing": 0.0,
    "ema": 0.0,
    "lookahead": 0,
    "augment": "flip,crop",
}
# Keras takes `learning rate × weight decay` of a weight away in each step. PyTorch's usual 5e-4 with a momentum of 0.9
# takes ten times its product, because there the decay passes through the momentum: hence 5e-3.
_BY_OPTIMIZER: Final[Mapping[str, Mapping[str, Any]]] = {
    "sgd": {"learning_rate": 0.05, "weight_decay": 5e-3},
    "adam": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "adamw": {"learning_rate": 1e-3, "weight_decay": 0.05},
}
# A schedule that falls to its end is worth most there: stopping early would leave before the best part, and the last
# weights owe nothing to the luck of one validation. Without such an end the best epoch is kept.
_TO_THE_END: Final = {"keep": "last", "patience": 0}
_WHENEVER: Final = {"keep": "best", "patience": 8}
_BY_SCHEDULE: Final[Mapping[str, Mapping[str, Any]]] = {
    "cosine": {"warmup": 0.05, **_TO_THE_END},
    "one-cycle": {"warmup": 0.25, **_TO_THE_END},
    "plateau": {"warmup": 0.0, **_WHENEVER},
    "constant": {"warmup": 0.05, **_WHENEVER},
}
_SMALL_PX: Final = 16
_BOUND_TO: Final = {
    "optimizer": ("learning_rate", "momentum", "weight_decay", "bias_lr_factor"),
    "schedule": ("warmup", "final_lr_factor", "keep", "patience"),
}
_OTHER_NAMES: Final = {"precision": "mixed_precision"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained. The fields are those of `TrainSettings` by the same names, decided.

    Args:
        epochs: Passes over the training split, at most.
        batch_size: Rows in a step, over all devices.
        optimizer: "sgd", "adam" or "adamw".
        learning_rate: The highest.
        momentum: Of SGD; β₁ of Adam.
        weight_decay: Share of a weight lost in a step, times the learning rate.
        bias_lr_factor: Of the biases of normalisation layers.
        schedule: "cosine", "one-cycle", "plateau" or "constant".
        warmup: Share of all steps.
        final_lr_factor: Of the learning rate.
        label_smoothing: Share of a label.
        ema: Decay per step of the average of the weights; 0 is off.
        lookahead: Steps; 0 is off.
        keep: "best" or "last".
        patience: Epochs; 0 is never.
        augment: As `Augmentation` writes it.
        precision: "float32" or "bfloat16".
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    bias_lr_factor: float
    schedule: str
    warmup: float
    final_lr_factor: float
    label_smoothing: float
    ema: float
    lookahead: int
    keep: str
    patience: int
    augment: str
    precision: str

    @property
    def augmentation(self) -> Augmentation:
        """The strengths that `augment` writes down."""
        return Augmentation.parse(self.augment)


def resolve(settings: TrainSettings, own: Mapping[str, Any], *, precision: str, image: ImageSpec) -> Recipe:
    """Decides what the user left open.

    Args:
        settings: The user's.
        own: The architecture's recipe.
        precision: What measured faster for the architecture, on a machine such as this.
        image: What a row is. Unless the user asks for it, grey pictures are not flipped (a mirrored digit is none), and
            those with a side below 16 pixels are left as they are: a shift by one pixel is a large one there.

    Raises:
        TrainingError: The architecture's recipe names something unknown or out of bounds.
    """
    given = _given(settings.model_dump())
    recommended = _recommended(settings, own, given)
    chosen = {**DEFAULTS, **recommended, **given}
    bound = {**_BY_OPTIMIZER[chosen["optimizer"]], **_BY_SCHEDULE[chosen["schedule"]]}
    values = {**bound, **chosen}
    values["precision"] = values.get("mixed_precision", precision)
    if "augment" not in given:
        values["augment"] = str(_fitting(Augmentation.parse(values["augment"]), image))
    if values["schedule"] == "plateau":
        values["warmup"] = 0.0  # its learning rate changes by epochs, never by steps
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)})


def _fitting(augmentation: Augmentation, image: ImageSpec) -> Augmentation:
    if min(image.height_px, image.width_px) < _SMALL_PX:
        return Augmentation()
    return augmentation.without_flip() if image.channels == 1 else augmentation


def _recommended(settings: TrainSettings, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the architecture's recipe, and leaves out what only holds with a choice that the user has changed."""
    renamed = {_OTHER_NAMES.get(name, name): value for name, value in own.items()}
    unknown = sorted(set(renamed) - {field.name for field in fields(Recipe)} - set(_OTHER_NAMES.values()))
    if unknown:
        raise TrainingError(f"expected settings of training in the recipe of {settings.model}, received '{unknown[0]}'")
    checked = _given(TrainSettings.parse({"name": "recipe", **renamed}).model_dump(include=set(renamed)))
    for choice, dependent in _BOUND_TO.items():
        if given.get(choice, checked.get(choice)) != checked.get(choice):
            checked = {name: value for name, value in checked.items() if name not in dependent}
    return checked


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(Recipe)} | set(_OTHER_NAMES.values())
    return {name: value for name, value in values.items() if name in names and value not in (None, "auto")}
