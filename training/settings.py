"""The settings of one training: the command's flags, their defaults, bounds and help are all read from here."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from training.augmentation import Augmentation
from training.data.packed import stem
from training.errors import TrainingError

EMBEDDED: Final = "digits"  # what `--data` calls the set that comes with scikit-learn
SIDE_PX: Final = range(2, 4097)
MLFLOW_FOLDER: Final = "mlruns"
_DEVICES: Final = re.compile(r"auto|(cpu|gpu)(:\d+(,\d+)*)?")


class TrainSettings(BaseModel):
    """Everything that decides a training, besides the data themselves.

    What is None or "auto" is decided by the architecture's recipe, or else for all of them by `training.recipe`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data: Annotated[
        str,
        Field(
            description="'digits' (embedded), a folder <root>/<split>/<class>/<file> or <root>/<class>/<file>, CIFAR or"
            " MNIST as published (a folder or .tar.gz), an .npz file, or keras:NAME; see docs/data.md"
        ),
    ] = EMBEDDED
    quarantine: Annotated[
        str, Field(description="leave out the pictures that this list of `python -m training validate` names")
    ] = ""
    name: Annotated[
        str, Field(description="the run's name: letters, digits, '.', '_', '-' (default: the data's name)")
    ] = ""
    model: Annotated[str, Field(description="the architecture, one of those listed below")] = "cnn"
    epochs: Annotated[int | None, Field(ge=1, le=10_000, description="passes over the training split")] = None
    batch_size: Annotated[int | None, Field(ge=1, le=65_536, description="rows in a training step")] = None
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw"] | None, Field(description="sgd has Nesterov momentum, adam no weight decay")
    ] = None
    learning_rate: Annotated[float | None, Field(gt=0, le=100, description="the highest, after warm-up")] = None
    momentum: Annotated[float | None, Field(ge=0, lt=1, description="of sgd; of adam the decay of the mean")] = None
    weight_decay: Annotated[
        float | None,
        Field(ge=0, le=100, description="share of a weight lost in a step, times the learning rate; not of biases"),
    ] = None
    bias_lr_factor: Annotated[
        float | None, Field(gt=0, le=1000, description="learning rate of normalisation layers' biases, times this")
    ] = None
    schedule: Annotated[
        Literal["cosine", "one-cycle", "plateau", "constant"] | None,
        Field(description="of the learning rate; plateau halves it after 3 epochs with no lower validation loss"),
    ] = None
    warmup: Annotated[
        float | None, Field(ge=0, lt=1, description="share of all steps in which the learning rate rises")
    ] = None
    final_lr_factor: Annotated[
        float | None, Field(ge=0, le=1, description="learning rate at the end of cosine and one-cycle, as a share")
    ] = None
    label_smoothing: Annotated[
        float | None, Field(ge=0, lt=1, description="share of a label that is spread over all classes")
    ] = None
    ema: Annotated[
        float | None,
        Field(ge=0, lt=1, description="validate and keep a moving average of the weights: its decay per step; 0: off"),
    ] = None
    lookahead: Annotated[
        int | None,
        Field(ge=0, le=1000, description="every so many steps, go back part of the way, more so near the end; 0: off"),
    ] = None
    keep: Annotated[
        Literal["best", "last"] | None, Field(description="the epoch whose weights count: best by validation accuracy")
    ] = None
    patience: Annotated[
        int | None, Field(ge=0, description="stop after so many epochs with no lower validation loss; 0: never")
    ] = None
    augment: Annotated[
        str,
        Field(
            description="none, or names with optional strengths: flip,crop,rotate=10,zoom=0.1,brightness=0.2,cutout=8,"
            "mixup=0.2 (default: the model's own, else flip,crop; no flip for grey pictures, none below 16 pixels)"
        ),
    ] = "auto"
    mixed_precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description="what layers compute in; auto: bfloat16 if the machine has it and the model is faster in it"),
    ] = "auto"
    devices: Annotated[
        str, Field(description="auto (every GPU, or else the CPU), cpu, or gpu:0,1 to share each batch among them")
    ] = "auto"
    image_size: Annotated[
        str, Field(description="HxW or N in pixels (default: the pictures' own, 64x64 if they differ)")
    ] = "auto"
    channels: Annotated[
        Literal["auto", "1", "3"], Field(description="1: greyscale, 3: colour (auto: 1 if every picture is grey)")
    ] = "auto"
    validation_fraction: Annotated[
        float, Field(gt=0, lt=1, description="share of the training split to validate on, if there is no such split")
    ] = 0.1
    split_seed: Annotated[
        int, Field(ge=0, lt=2**32, description="of the 70/15/15 split, for data that come without splits")
    ] = 0
    memory_limit_mb: Annotated[
        str,
        Field(description="decoded pictures beyond so many megabytes stay on disk (default: a third of what is free)"),
    ] = "auto"
    cache: Annotated[
        str, Field(description="folder for decoded pictures that stay on disk (default: .cache in the folder of runs)")
    ] = ""
    fraction: Annotated[float, Field(gt=0, le=1, description="train on this share only, for quick trials")] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32, description="of the split, the weights, shuffling and dropout")] = 0
    deterministic: Annotated[bool, Field(description="slower operations that give the same bits every time")] = False
    set: Annotated[
        dict[str, str], Field(description="a setting of the model, such as --set dropout=0.3 (repeatable)")
    ] = {}
    runs: Annotated[Path, Field(description="folder that holds the runs")] = Path("runs")
    fresh: Annotated[bool, Field(description="start over, instead of continuing an unfinished run")] = False
    checkpoints: Annotated[
        bool, Field(description="write down every epoch, so that the same command continues a run that was cut off")
    ] = True
    checkpoint_minutes: Annotated[
        float, Field(gt=0, description="write a checkpoint within an epoch, too, after so many minutes")
    ] = 10.0
    mlflow: Annotated[
        str,
        Field(
            description="log the finished run to MLflow: a tracking URI, or nothing for the folder mlruns",
            json_schema_extra={"without_value": MLFLOW_FOLDER},
        ),
    ] = ""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return name if not name else checked_name(name)

    @field_validator("augment")
    @classmethod
    def _check_augment(cls, text: str) -> str:
        return text if text == "auto" else str(Augmentation.parse(text))

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, text: str) -> str:
        if not _DEVICES.fullmatch(text):
            raise ValueError("expected auto, cpu or gpu:0,1")
        return text

    @field_validator("image_size")
    @classmethod
    def _check_image_size(cls, text: str) -> str:
        if text != "auto":
            parse_size(text)
        return text

    @field_validator("memory_limit_mb")
    @classmethod
    def _check_memory_limit(cls, text: str) -> str:
        if text != "auto" and not (text.isascii() and text.isdigit()):
            raise ValueError("expected 'auto' or a whole number of megabytes")
        return text

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Makes settings of raw values, such as flags.

        Raises:
            TrainingError: A value is unknown or out of bounds; the message is one line and names the flag.
        """
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise TrainingError(_one_line(error)) from None
        _ = settings.run_name  # refused now rather than after training
        return settings

    @property
    def run_name(self) -> str:
        """The run's name: the user's, or else the data's.

        Raises:
            TrainingError: The data's name is no run's name.
        """
        try:
            return self.name or checked_name(stem(Path(self.data.rpartition(":")[2])))
        except ValueError as error:
            raise TrainingError(
                f"the data folder's name cannot name the run ({error}); give a name by --name"
            ) from None

    @property
    def cache_folder(self) -> Path:
        """Where decoded pictures that exceed memory are kept."""
        return Path(self.cache) if self.cache else self.runs / ".cache"

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Height and width that the user asked for, if any."""
        return None if self.image_size == "auto" else parse_size(self.image_size)


def checked_name(name: str) -> str:
    """Returns a run's name that is safe as a folder's name.

    Raises:
        ValueError: It is not.
    """
    if not name[:1].isalnum() or not name.isascii() or any(not (c.isalnum() or c in "._-") for c in name):
        raise ValueError("expected letters, digits, '.', '_' and '-', beginning with a letter or a digit")
    return name


def parse_size(text: str) -> tuple[int, int]:
    """Reads `HxW` or `N`.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: It is neither, or a side is out of bounds.
    """
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError("expected HxW or N in pixels, such as 32x32 or 32")
    height, width = int(parts[0]), int(parts[-1])
    if height not in SIDE_PX or width not in SIDE_PX:
        raise ValueError(f"expected sides of {SIDE_PX.start} to {SIDE_PX.stop - 1} pixels")
    return height, width


def parse_model_settings(cls: type[Any], values: Mapping[str, str]) -> Any:
    """Makes a model's settings (a frozen dataclass) of `--set` values.

    Args:
        cls: The dataclass.
        values: Setting → text; the text is read as JSON where it is JSON (`[32,64]`, `0.3`), else as a string.

    Raises:
        TrainingError: A setting is unknown or its value is not usable.
    """
    known = [field.name for field in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise TrainingError(f"--set: expected one of {', '.join(known)}; received '{unknown[0]}'")
    try:
        return TypeAdapter(cls).validate_python({key: _from_text(text) for key, text in values.items()})
    except ValidationError as error:
        raise TrainingError(_one_line(error, "--set ")) from None


def _from_text(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _one_line(error: ValidationError, flag: str = "--") -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # of several settings together: such a message is whole, and names them
        return flag + first["msg"].removeprefix("Value error, ")
    place = str(first["loc"][0]).replace("_", "-") if flag == "--" else str(first["loc"][0])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = message if message.startswith("expected") else f"expected {message}"
    return f"{flag}{place}: {expected}; received '{first['input']}'"
