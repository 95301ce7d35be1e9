"""The registry of architectures: one file each.

A file `training/models/<name>.py` defines `ARCHITECTURE`; adding one means adding the file and its line in `MODELS`.
`module:function` names a user's own, see `training.models.custom`.
Keras is imported with the file, not with the registry, so that listing names costs nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.images import ImageSpec
from training.errors import TrainingError

MODELS: Final = {
    "cnn": "blocks of Conv, BatchNorm, ReLU, MaxPool and Dropout (32, 64, 128, 256 filters), dense 512 and 256",
    "fast": "wide, shallow CNN with a whitening first layer (blocks of 64, 256, 256 filters); small pictures",
    "resnet": "residual network, ResNet-20 by default (stages of 16, 32, 64 filters)",
    "binary": "plain CNN with one sigmoid output, for two classes",
    "mlp": "dense layers alone, for comparison",
    "transfer": "a backbone of keras.applications with its weights, frozen at first, then fine-tuned",
}

_OWN: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def _nothing(model: Any, rows: NDArray[np.uint8]) -> None:
    """Leaves a model as it was built."""


def _no_callbacks(settings: Any) -> Sequence[Any]:  # noqa: ARG001 (the field's signature)
    """Needs none."""
    return ()


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is made.

    Args:
        settings: A frozen dataclass; every field has a default, so `settings()` is the architecture as published.
        build: `(settings, image, classes)` → an uncompiled Keras model from pixels 0..255 `[n, h, w, c]` to
            `probabilities` `[n, classes]`, in the dtype policy that is set globally.
        note: What to tell a person about this architecture at this size, or nothing.
        precision: What `--mixed-precision auto` means for it, as measured; bfloat16 only where the machine has it.
        recipe: Defaults of the training's settings by their names (`optimizer`, `epochs`, …) with which it was
            measured; a flag that the user gives counts more, a default that holds for every architecture less.
        prepare: `(model, rows)`: sets weights of a fresh model from the training split's pixels, `uint8[n, h, w, c]`,
            before the first step.
        callbacks: Keras callbacks that its training needs besides the loop's own.
    """

    settings: type[Any]
    build: Callable[[Any, ImageSpec, int], Any]
    note: Callable[[Any, ImageSpec], str]
    precision: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any, NDArray[np.uint8]], None] = _nothing
    callbacks: Callable[[Any], Sequence[Any]] = _no_callbacks


def at_least(name: str, image: ImageSpec, side_px: int) -> None:
    """Refuses pictures that are too small for an architecture.

    Raises:
        TrainingError: A side is shorter than `side_px`.
    """
    if min(image.height_px, image.width_px) < side_px:
        raise TrainingError(
            f"--model {name}: expected pictures of at least {side_px}x{side_px} pixels, received"
            f" {image.height_px}x{image.width_px}; enlarge them by --image-size or choose another model"
        )


def check(name: str) -> None:
    """Refuses a name that is neither in the registry nor `module:function`, before anything slow is imported.

    Raises:
        TrainingError: It is neither.
    """
    if name not in MODELS and not _OWN.fullmatch(name):
        raise TrainingError(
            f"--model: expected one of {', '.join(sorted(MODELS))}, or your own as module:function; received '{name}'"
        )


def get(name: str) -> Architecture:
    """Finds an architecture, and imports Keras for it.

    Args:
        name: Of the registry, or `module:function`; see `training.models.custom`.

    Raises:
        TrainingError: There is no such architecture.
    """
    check(name)
    if ":" in name:
        made: Architecture = import_module("training.models.custom").architecture(name)
        return made
    architecture: Architecture = import_module(f"training.models.{name}").ARCHITECTURE
    return architecture
