"""A residual network in the small form made for CIFAR (He et al. 2015, arXiv:1512.03385, section 4.2).

    pixels ─ Conv 3×3 ─▶ n blocks of 16 ─▶ n of 32, halved ─▶ n of 64, halved ─▶ global average ─▶ probabilities
                          └ block: x + norm(Conv(ReLU(norm(Conv(x))))) ─ ReLU

`blocks` 3, 5 and 9 give ResNet-20, 32 and 56. `--set 'widths=[64,128,256,512]' --set blocks=2` gives ResNet-18.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import keras
from pydantic import Field

from server.images import ImageSpec
from training import layers
from training.models import Architecture, at_least

Units = Annotated[int, Field(ge=1, le=4096)]

_STRIDED_FROM_PX: Final = 64  # of the shorter side: the first convolution halves the picture
_POOLED_FROM_PX: Final = 128  # and a pooling halves it again


@dataclass(frozen=True, slots=True)
class ResnetSettings:
    """What can be tuned.

    Args:
        widths: Filters of each stage; every stage but the first halves the map.
        blocks: In each stage.
        norm_momentum: Of batch normalisation's running mean and variance.
        dropout: Before the last layer.
    """

    widths: Annotated[tuple[Units, ...], Field(min_length=1, max_length=6)] = (16, 32, 64)
    blocks: Annotated[int, Field(ge=1, le=50)] = 3
    norm_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


def build(settings: ResnetSettings, image: ImageSpec, classes: int) -> Any:
    """Builds the network; see `Architecture.build`."""
    # Convolutions that halve a single pixel would learn from padding alone.
    at_least("resnet", image, 2 ** (len(settings.widths) - 1))
    pixels = keras.Input(image.shape, name="image")
    # float32 whatever the policy is: a bfloat16 has 8 bits, which is too coarse for scaled pixels.
    features = keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(pixels)
    features = _stem(features, settings, image)
    for stage, width in enumerate(settings.widths, start=1):
        for block in range(1, settings.blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            features = _block(features, settings, width, stride, f"stage_{stage}_block_{block}")
    features = keras.layers.GlobalAveragePooling2D(name="average")(features)
    if settings.dropout:
        features = keras.layers.Dropout(settings.dropout, name="dropout")(features)
    output = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(features)
    return keras.Model(pixels, output, name="resnet")


def note(settings: ResnetSettings, image: ImageSpec) -> str:  # noqa: ARG001 (every note's signature)
    """Says where the first layers halve the picture; see `Architecture.note`."""
    factor = _stem_factor(image)
    return "" if factor == 1 else f"{image.height_px}x{image.width_px} pictures are reduced {factor} times at the start"


def _stem_factor(image: ImageSpec) -> int:
    side = min(image.height_px, image.width_px)
    return 4 if side >= _POOLED_FROM_PX else 2 if side >= _STRIDED_FROM_PX else 1


def _stem(features: Any, settings: ResnetSettings, image: ImageSpec) -> Any:
    factor = _stem_factor(image)
    features = _conv_norm(features, settings, settings.widths[0], min(factor, 2), "stem")
    features = keras.layers.ReLU(name="stem_relu")(features)
    if factor > 2:  # noqa: PLR2004 (the convolution halves once)
        features = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(features)
    return features


def _block(features: Any, settings: ResnetSettings, width: int, stride: int, name: str) -> Any:
    shortcut = features
    if stride > 1 or features.shape[-1] != width:
        shortcut = _conv_norm(features, settings, width, stride, f"{name}_shortcut", kernel_px=1)
    features = _conv_norm(features, settings, width, stride, f"{name}_1")
    features = keras.layers.ReLU(name=f"{name}_1_relu")(features)
    # Begins at zero, so that every block begins as its shortcut (Goyal et al. 2017, arXiv:1706.02677).
    features = _conv_norm(features, settings, width, 1, f"{name}_2", gamma="zeros")
    features = keras.layers.Add(name=f"{name}_add")([shortcut, features])
    return keras.layers.ReLU(name=f"{name}_relu")(features)


def _conv_norm(
    features: Any,
    settings: ResnetSettings,
    width: int,
    stride: int,
    name: str,
    *,
    kernel_px: int = 3,
    gamma: str = "ones",
) -> Any:
    convolution = layers.conv(
        width,
        kernel_px,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )
    norm = layers.batch_norm(momentum=settings.norm_momentum, gamma_initializer=gamma, name=f"{name}_norm")
    return norm(convolution(features))


# One cycle of SGD with the momentum and the flip-and-crop of the paper, in an eighth of its epochs. The usual decay of
# 5e-4 passes through the momentum of 0.9, which multiplies it by ten; Keras's does not pass through it.
RECIPE: Final = {
    "epochs": 24,
    "batch_size": 256,
    "optimizer": "sgd",
    "learning_rate": 0.2,
    "momentum": 0.9,
    "weight_decay": 5e-3,
    "schedule": "one-cycle",
    "warmup": 0.25,
    "final_lr_factor": 0.0,
    "label_smoothing": 0.1,
    "augment": "flip,crop",
}

ARCHITECTURE = Architecture(settings=ResnetSettings, build=build, note=note, precision="bfloat16", recipe=RECIPE)
