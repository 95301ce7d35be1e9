"""The registry of architectures: one file each.

A file `training/models/<name>.py` defines `ARCHITECTURE`; adding one means adding the file and its line in `MODELS`.
Keras is imported with the file, not with the registry, so that listing names costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from server.images import ImageSpec
from training.errors import TrainingError

MODELS: Final = {
    "cnn": "blocks of Conv, BatchNorm, ReLU, MaxPool and Dropout (32, 64, 128, 256 filters), dense 512 and 256",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is made.

    Args:
        settings: A frozen dataclass; every field has a default, so `settings()` is the architecture as published.
        build: `(settings, image, classes)` → an uncompiled Keras model from pixels 0..255 `[n, h, w, c]` to
            `probabilities` `[n, classes]`, in the dtype policy that is set globally.
        note: What to tell a person about this architecture at this size, or nothing.
        precision: What `--mixed-precision auto` means for it, as measured.
    """

    settings: type[Any]
    build: Callable[[Any, ImageSpec, int], Any]
    note: Callable[[Any, ImageSpec], str]
    precision: str


def check(name: str) -> None:
    """Refuses a name that is not in the registry, before anything slow is imported.

    Raises:
        TrainingError: There is no architecture of that name.
    """
    if name not in MODELS:
        raise TrainingError(f"--model: expected one of {', '.join(sorted(MODELS))}; received '{name}'")


def get(name: str) -> Architecture:
    """Finds an architecture, and imports Keras for it.

    Raises:
        TrainingError: There is no architecture of that name.
    """
    check(name)
    architecture: Architecture = import_module(f"training.models.{name}").ARCHITECTURE
    return architecture
