"""A backbone of `keras.applications` that learnt on other pictures, and a new last layer.

    pixels ─ ×1/255 ─ 1×1 Conv (what the backbone expects) ─▶ backbone ─▶ global average ─▶ probabilities
                                                               └ frozen for `freeze_epochs`, then trained too

The 1 × 1 convolution holds the backbone's own preprocessing, which is an affine map of the colours: scales, means, the
order of the channels; and for grey pictures the copy into three. It is part of the model, so the server feeds pixels.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from server.images import ImageSpec
from training.errors import TrainingError
from training.models import Architecture

BACKBONE: Final = "backbone"
_WHITE: Final = 255.0
_COLOURS: Final = 3


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """What can be tuned.

    Args:
        backbone: A name in `keras.applications`, such as MobileNetV2, EfficientNetB0 or ResNet50.
        weights: "imagenet" (downloaded once), a file of weights without the top, or "none".
        freeze_epochs: Epochs in which only the last layer learns, so that its first, wild steps spoil nothing.
        dropout: Before the last layer.
    """

    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    freeze_epochs: Annotated[int, Field(ge=0)] = 3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


def build(settings: TransferSettings, image: ImageSpec, classes: int) -> Any:
    """Builds the network; see `Architecture.build`.

    Raises:
        TrainingError: There is no such backbone, its weights cannot be had, or it takes no pictures of this size.
    """
    make, preprocess = _backbone(settings.backbone)
    network = _network(make, settings, image)
    pixels = keras.Input(image.shape, name="image")
    # float32 whatever the policy is: a bfloat16 has 8 bits, which is too coarse for scaled pixels.
    features = keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(pixels)
    features = _expected(features, preprocess)
    features = network(features)
    features = keras.layers.GlobalAveragePooling2D(name="average")(features)
    features = keras.layers.Dropout(settings.dropout, name="dropout")(features)
    output = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(features)
    return keras.Model(pixels, output, name="transfer")


def note(settings: TransferSettings, image: ImageSpec) -> str:  # noqa: ARG001 (every note's signature)
    """Says what is trained when; see `Architecture.note`."""
    if settings.weights == "none":
        return f"{settings.backbone} begins with random weights; use --set weights=imagenet or a file"
    return f"{settings.backbone} from {settings.weights}, frozen for {settings.freeze_epochs} epochs"


def callbacks(settings: TransferSettings) -> Sequence[Any]:
    """Freezes the backbone for the first epochs; see `Architecture.callbacks`."""
    return [] if settings.weights == "none" or not settings.freeze_epochs else [Freeze(settings.freeze_epochs)]


class Freeze(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Holds the backbone's weights for the first epochs.

    The optimizer is built with every weight beforehand, so its state and the schedule go on when the backbone joins.

    Args:
        epochs: How many.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's signature)
        """Freezes or frees the backbone where that changes; a resumed training may begin in either phase."""
        backbone, trained = self.model.get_layer(BACKBONE), epoch >= self.epochs
        if backbone.trainable == trained:
            return
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        backbone.trainable = trained
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002 (Keras's signature)
        """Leaves the model as it was built, however early training ended."""
        self.model.get_layer(BACKBONE).trainable = True
        self.model.make_train_function(force=True)


def backbones() -> list[str]:
    """Lists the names that `backbone` may have."""
    return sorted(name for name in dir(keras.applications) if name[0].isupper())


def _backbone(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Finds a backbone's function and its preprocessing."""
    if name not in backbones():
        raise TrainingError(f"--set backbone: expected one of {', '.join(backbones())}; received '{name}'")
    make = getattr(keras.applications, name)
    # Not every backbone is listed in its public module, so the preprocessing is the one beside its code.
    return make, import_module(make.__module__).preprocess_input


def _network(make: Callable[..., Any], settings: TransferSettings, image: ImageSpec) -> Any:
    weights = None if settings.weights == "none" else settings.weights
    if weights not in (None, "imagenet") and not Path(settings.weights).is_file():
        raise TrainingError(
            f"--set weights: expected imagenet, none or a file of weights, received '{settings.weights}': no such file"
        )
    shape = (image.height_px, image.width_px, _COLOURS)
    try:
        with warnings.catch_warnings():
            # "Weights for input shape (224, 224) will be loaded": convolutions have the same weights at every size.
            warnings.filterwarnings("ignore", message=".*Weights for input shape.*", category=UserWarning)
            return make(include_top=False, weights=weights, input_shape=shape, name=BACKBONE)
    # Keras raises a bare Exception when a download fails.
    except Exception as error:
        raise TrainingError(_refusal(settings, image, error)) from error


def _refusal(settings: TransferSettings, image: ImageSpec, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    if "URL fetch failure" in reason:
        return (
            f"the weights of {settings.backbone} cannot be downloaded ({reason}); give a file by --set weights=<file>,"
            " or begin with random ones by --set weights=none"
        )
    return (
        f"{settings.backbone} cannot be made for {image.height_px}x{image.width_px} pictures with weights"
        f" '{settings.weights}': {reason}; change --image-size or --set weights"
    )


def _expected(features: Any, preprocess: Callable[..., Any]) -> Any:
    """Turns colours 0..1 into what the backbone was trained on."""
    kernel, bias = _affine(preprocess, features.shape[-1])
    layer = keras.layers.Conv2D(_COLOURS, 1, trainable=False, dtype="float32", name="preprocess")
    prepared = layer(features)
    layer.set_weights([kernel, bias])
    return prepared


def _affine(preprocess: Callable[..., Any], channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reads a preprocessing function's matrix and offset off its answers to black and to the pure colours.

    Returns:
        A kernel `float32[1, 1, channels, 3]` for colours 0..1, and a bias `float32[3]`.
    """
    black = np.zeros((1, 1, _COLOURS), np.float32)
    bias = np.asarray(preprocess(black.copy())).ravel()
    pure = np.eye(_COLOURS, dtype=np.float32)[:, None, :] * np.float32(_WHITE)
    matrix = np.asarray(preprocess(pure.copy())).reshape(_COLOURS, _COLOURS) - bias
    if channels == 1:  # the same grey in all three
        matrix = matrix.sum(axis=0, keepdims=True)
    return matrix[None, None].astype(np.float32), bias.astype(np.float32)


# Small steps: the backbone is nearly right already. Its batch normalisation averages over hundreds of steps, so batches
# are small.
RECIPE: Final = {
    "epochs": 15,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "augment": "flip,crop",
}

ARCHITECTURE = Architecture(
    settings=TransferSettings, build=build, note=note, precision="float32", recipe=RECIPE, callbacks=callbacks
)
