"""A wide, shallow CNN that learns small pictures quickly.

    pixels ─ whitening 2×2, frozen ─ ReLU ─▶ 3 blocks ─▶ global maximum ─▶ linear ─▶ probabilities
                                             └ Conv ─ MaxPool ─ norm ─ ReLU ─ Conv ─ norm ─ ReLU
                                               with convs=3: … ─ ReLU ─ x + (Conv ─ norm ─ ReLU ─ Conv ─ norm) ─ ReLU

After Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv:2404.00498), with these differences:

- ReLU in place of GELU. On a CPU GELU costs a third of the step, and int8 serving fuses ReLU for nothing.
- The first layer is frozen as a whole, its bias too: no gradient is computed for the largest map.

The first layer turns the patches of the training pictures into uncorrelated values of equal variance; `prepare` sets it
from the data. Convolutions begin as an identity where they can, so that the first steps already see pictures.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from server.images import ImageSpec
from training import layers
from training.models import Architecture, at_least

Units = Annotated[int, Field(ge=1, le=4096)]
Depth = Literal[1, 2, 3]

SMALLEST_PX: Final = 3  # the first layer takes one pixel, one halving needs two
_MAP_PX: Final = 32  # larger pictures are cut into patches until about so many are left
_SAMPLE_ROWS: Final = 5_000  # 5 million patches at 32 × 32
# Variance that is taken for noise, of pixels 0..1; 0.25 is their usual deviation. The paper has 5e-4 here, for raw
# pixels. JPEG files of quality 75 have 4e-3 to 1e-4 in their six finest patterns, which is rounding more than picture.
_NOISE: Final = 1e-2 * 0.25**2


@dataclass(frozen=True, slots=True)
class FastSettings:
    """What can be tuned.

    Args:
        widths: Filters of each block. Blocks that the picture is too small to halve for are left out.
        convs: Convolutions of each block, or of every block. With three, the last two are added to what they start
            from: the network of the paper's 96 %, which has the patience for longer trainings.
        stem_filters: Of the first layer: pairs of a pattern and its negative, the strongest patterns first.
        activation: Between layers.
        norm_momentum: Of batch normalisation's running mean and variance.
        logit_scale: Factor before the last layer: a small one keeps early answers uncertain.
    """

    widths: Annotated[tuple[Units, ...], Field(min_length=1, max_length=8)] = (64, 256, 256)
    convs: Depth | Annotated[tuple[Depth, ...], Field(min_length=1, max_length=8)] = 2
    stem_filters: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 24
    activation: Literal["relu", "gelu", "silu"] = "relu"
    norm_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.6
    logit_scale: Annotated[float, Field(gt=0, le=1)] = 1 / 9

    def __post_init__(self) -> None:
        """Refuses depths that are not one for each block."""
        if not isinstance(self.convs, int) and len(self.convs) != len(self.widths):
            raise ValueError(
                f"convs: expected one number, or one for each of the {len(self.widths)} widths;"
                f" received {list(self.convs)}"
            )


def build(settings: FastSettings, image: ImageSpec, classes: int) -> Any:
    """Builds the network; see `Architecture.build`."""
    at_least("fast", image, SMALLEST_PX)
    pixels = keras.Input(image.shape, name="image")
    # float32 whatever the policy is: a bfloat16 has 8 bits, which is too coarse for scaled pixels.
    features = keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(pixels)
    features = _stem(settings, image)(features)
    features = keras.layers.Activation(settings.activation, name="stem_act")(features)
    for index in range(blocks(settings, image)):
        features = _block(features, settings, index)
    features = keras.layers.GlobalMaxPooling2D(name="pool")(features)
    features = keras.layers.Rescaling(settings.logit_scale, name="logit_scale")(features)
    logits = keras.layers.Dense(classes, use_bias=False, kernel_initializer=_small(), name="logits")(features)
    output = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
    return keras.Model(pixels, output, name="fast")


def blocks(settings: FastSettings, image: ImageSpec) -> int:
    """Returns how many blocks fit: each halves the map, and a side of one cannot be halved."""
    patch, stride = _patch(image)
    side = (min(image.height_px, image.width_px) - patch) // stride + 1
    return min(len(settings.widths), side.bit_length() - 1)


def note(settings: FastSettings, image: ImageSpec) -> str:
    """Says which blocks are left out; see `Architecture.note`."""
    fitting = blocks(settings, image)
    if fitting == len(settings.widths):
        return ""
    return (
        f"{image.height_px}x{image.width_px} pictures allow {fitting} halvings: the first {fitting} of"
        f" {len(settings.widths)} blocks are used"
    )


def prepare(model: Any, rows: NDArray[np.uint8]) -> None:
    """Sets the first layer from training pictures; see `Architecture.prepare`."""
    stem = model.get_layer("stem")
    size, _, channels, filters = stem.kernel.shape
    patches = _patches(rows[:_SAMPLE_ROWS], size)
    patterns, mean = _whitening(patches, filters // 2)
    kernel = np.concatenate([patterns, -patterns])
    stem.kernel.assign(kernel.reshape(filters, size, size, channels).transpose(1, 2, 3, 0))
    stem.bias.assign(-kernel @ mean)


def _whitening(patches: NDArray[np.float32], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Finds patterns whose responses are uncorrelated and of variance 1.

    Args:
        patches: `float32[n, d]`, 0..1.
        count: How many patterns; beyond `d` they repeat.

    Returns:
        The patterns `float64[count, d]`, of the largest variance first, and the mean patch `float64[d]`.
    """
    mean = patches.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    patterns = (vectors / np.sqrt(values + _NOISE)).T[::-1]
    return np.resize(patterns, (count, patches.shape[1])), mean


def _patches(rows: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    windows = np.lib.stride_tricks.sliding_window_view(rows, (size, size), axis=(1, 2))[:, ::2, ::2]
    # [n, h, w, channel, y, x] → y, x, channel, as a kernel has them
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * rows.shape[3])
    return flat.astype(np.float32) / np.float32(255)


def _patch(image: ImageSpec) -> tuple[int, int]:
    """Returns the first layer's kernel and stride: overlapping 2 × 2 up to 63 pixels, then tiles side by side."""
    stride = max(1, min(image.height_px, image.width_px) // _MAP_PX)
    return max(2, stride), stride


def _stem(settings: FastSettings, image: ImageSpec) -> Any:
    patch, stride = _patch(image)
    # float32, too: patterns of little variance are differences of nearly equal pixels, multiplied by a hundred.
    return keras.layers.Conv2D(
        settings.stem_filters, patch, strides=stride, trainable=False, dtype="float32", name="stem"
    )


def _block(features: Any, settings: FastSettings, index: int) -> Any:
    name = f"block_{index + 1}"
    features = _conv(features, settings.widths[index], f"{name}_conv_1")
    # Pooled before it is normalised: the rest of the block works on a quarter of the values.
    features = keras.layers.MaxPooling2D(name=f"{name}_pool")(features)
    shortcut = features = _activated(features, settings, f"{name}_1")
    convs = settings.convs if isinstance(settings.convs, int) else settings.convs[index]
    if convs == 1:
        return features
    features = _conv(features, settings.widths[index], f"{name}_conv_2")
    features = _activated(features, settings, f"{name}_2")
    if convs == 2:  # noqa: PLR2004 (the number itself)
        return features
    features = _normalised(_conv(features, settings.widths[index], f"{name}_conv_3"), settings, f"{name}_3")
    features = keras.layers.Add(name=f"{name}_add")([shortcut, features])
    return keras.layers.Activation(settings.activation, name=f"{name}_3_act")(features)


def _activated(features: Any, settings: FastSettings, name: str) -> Any:
    features = _normalised(features, settings, name)
    return keras.layers.Activation(settings.activation, name=f"{name}_act")(features)


def _normalised(features: Any, settings: FastSettings, name: str) -> Any:
    # No gamma: the next layer has a scale of its own, and a bias that learns 64 times as fast needs company.
    norm = layers.batch_norm(momentum=settings.norm_momentum, epsilon=1e-5, scale=False, name=f"{name}_norm")
    return norm(features)


def _conv(features: Any, width: int, name: str) -> Any:
    layer = layers.conv(width, 3, padding="same", use_bias=False, kernel_initializer=_small(), name=name)
    convolved = layer(features)
    # Written here and not by an initializer of our own: a file that names one needs our code to be loaded.
    kernel = np.array(layer.kernel)
    same = np.arange(min(kernel.shape[2:]))
    kernel[:, :, :, same] = 0
    kernel[1, 1, same, same] = 1
    layer.kernel.assign(kernel)
    return convolved


def _small() -> Any:
    # PyTorch's default for layers, with which the recipe was found: uniform within ± 1 / sqrt(inputs).
    return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")


# The recipe of the paper in Keras terms. There the learning rate, 11.5 per 1,024 pictures, is for a summed loss and is
# divided by 1 + 1 / (1 − momentum), and decay passes through the momentum, which in Keras it does not.
RECIPE: Final = {
    "epochs": 20,
    "batch_size": 512,
    "optimizer": "sgd",
    "learning_rate": 0.75,
    "momentum": 0.85,
    "weight_decay": 0.0089,
    "bias_lr_factor": 64.0,
    "schedule": "one-cycle",
    "warmup": 0.23,
    "final_lr_factor": 0.07,
    "label_smoothing": 0.2,
    "lookahead": 5,
    "augment": "flip,crop=2",
}

ARCHITECTURE = Architecture(
    settings=FastSettings, build=build, note=note, precision="bfloat16", recipe=RECIPE, prepare=prepare
)
