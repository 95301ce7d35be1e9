"""A plain CNN with one sigmoid output, for two classes.

    pixels ─▶ 3 × [Conv ─ ReLU ─ MaxPool] of 32, 64, 128 ─▶ dense 128 ─▶ dense 64 ─▶ p ─▶ probabilities [1 − p, p]

p is the probability of the second class. The model answers both, so that every metric, the export and the server treat
it like any other; cross-entropy of `[1 − p, p]` is binary cross-entropy of p.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import keras
from pydantic import Field

from server.images import ImageSpec
from training.errors import TrainingError
from training.models import Architecture, at_least

Units = Annotated[int, Field(ge=1, le=65_536)]
Rate = Annotated[float, Field(ge=0, lt=1)]

CLASSES: Final = 2


@dataclass(frozen=True, slots=True)
class BinarySettings:
    """What can be tuned.

    Args:
        filters: Of each block's convolution.
        dense_units: Of each dense layer before the output.
        dropout: After each dense layer.
    """

    filters: Annotated[tuple[Units, ...], Field(min_length=1, max_length=8)] = (32, 64, 128)
    dense_units: tuple[Units, ...] = (128, 64)
    dropout: Rate = 0.3


def build(settings: BinarySettings, image: ImageSpec, classes: int) -> Any:
    """Builds the network; see `Architecture.build`.

    Raises:
        TrainingError: There are not two classes, or the picture cannot be halved once per block.
    """
    if classes != CLASSES:
        raise TrainingError(
            f"--model binary: expected data of {CLASSES} classes, received {classes}; choose another model, such as cnn"
        )
    at_least("binary", image, 2 ** len(settings.filters))
    pixels = keras.Input(image.shape, name="image")
    # float32 whatever the policy is: a bfloat16 has 8 bits, which is too coarse for scaled pixels.
    features = keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(pixels)
    for index, filters in enumerate(settings.filters, start=1):
        layer = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"block_{index}_conv")
        features = keras.layers.MaxPooling2D(name=f"block_{index}_pool")(layer(features))
    features = keras.layers.Flatten(name="flatten")(features)
    for index, units in enumerate(settings.dense_units, start=1):
        features = keras.layers.Dense(units, activation="relu", name=f"dense_{index}")(features)
        features = keras.layers.Dropout(settings.dropout, name=f"dense_{index}_dropout")(features)
    second = keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="second")(features)
    first = keras.layers.Rescaling(-1.0, offset=1.0, dtype="float32", name="first")(second)
    output = keras.layers.Concatenate(dtype="float32", name="probabilities")([first, second])
    return keras.Model(pixels, output, name="binary")


def note(settings: BinarySettings, image: ImageSpec) -> str:  # noqa: ARG001 (every note's signature)
    """Has nothing to say; see `Architecture.note`."""
    return ""


ARCHITECTURE = Architecture(settings=BinarySettings, build=build, note=note, precision="float32")
