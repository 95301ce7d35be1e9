"""Dense layers alone, for comparison: what can be learnt with no notion of which pixels are neighbours."""

from dataclasses import dataclass
from typing import Annotated, Any

import keras
from pydantic import Field

from server.images import ImageSpec
from training.models import Architecture

Units = Annotated[int, Field(ge=1, le=65_536)]


@dataclass(frozen=True, slots=True)
class MlpSettings:
    """What can be tuned.

    Args:
        units: Of each dense layer before the last.
        dropout: After each of them.
    """

    units: tuple[Units, ...] = (512, 256)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3


def build(settings: MlpSettings, image: ImageSpec, classes: int) -> Any:
    """Builds the network; see `Architecture.build`."""
    pixels = keras.Input(image.shape, name="image")
    # float32 whatever the policy is: a bfloat16 has 8 bits, which is too coarse for scaled pixels.
    features = keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(pixels)
    features = keras.layers.Flatten(name="flatten")(features)
    for index, units in enumerate(settings.units, start=1):
        features = keras.layers.Dense(units, activation="relu", name=f"dense_{index}")(features)
        features = keras.layers.Dropout(settings.dropout, name=f"dense_{index}_dropout")(features)
    output = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(features)
    return keras.Model(pixels, output, name="mlp")


def note(settings: MlpSettings, image: ImageSpec) -> str:  # noqa: ARG001 (every note's signature)
    """Has nothing to say; see `Architecture.note`."""
    return ""


ARCHITECTURE = Architecture(settings=MlpSettings, build=build, note=note, precision="float32")
