"""The settings of one training: the command's flags, their defaults, bounds and help are all read from here."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from training.errors import TrainingError

EMBEDDED: Final = "digits"  # what `--data` calls the set that comes with scikit-learn
SIDE_PX: Final = range(2, 4097)


class TrainSettings(BaseModel):
    """Everything that decides a training, besides the data themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data: Annotated[str, Field(description="'digits' (embedded), or a folder <root>/<split>/<class>/<file>")] = EMBEDDED
    name: Annotated[
        str, Field(description="the run's name: letters, digits, '.', '_', '-' (default: the data's name)")
    ] = ""
    model: Annotated[str, Field(description="the architecture, one of those listed below")] = "cnn"
    epochs: Annotated[int, Field(ge=1, le=10_000, description="at most so many passes over the training split")] = 30
    batch_size: Annotated[int, Field(ge=1, le=65_536, description="rows in a training step")] = 64
    learning_rate: Annotated[float, Field(gt=0, le=10, description="Adam's first learning rate")] = 1e-3
    patience: Annotated[int, Field(ge=1, description="stop after so many epochs with no lower validation loss")] = 8
    augment: Annotated[
        Literal["auto", "none", "crop", "flip-crop"],
        Field(description="auto: none for greyscale (a mirrored digit is none), flip-crop for colour"),
    ] = "auto"
    mixed_precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description="what layers compute in; auto: what measured faster for the model"),
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
    fraction: Annotated[float, Field(gt=0, le=1, description="train on this share only, for quick trials")] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32, description="of the split, the weights, shuffling and dropout")] = 0
    deterministic: Annotated[bool, Field(description="slower operations that give the same bits every time")] = False
    set: Annotated[
        dict[str, str], Field(description="a setting of the model, such as --set dropout=0.3 (repeatable)")
    ] = {}
    runs: Annotated[Path, Field(description="folder that holds the runs")] = Path("runs")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return name if not name else checked_name(name)

    @field_validator("image_size")
    @classmethod
    def _check_image_size(cls, text: str) -> str:
        if text != "auto":
            parse_size(text)
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
            return self.name or checked_name(Path(self.data).resolve().name)
        except ValueError as error:
            raise TrainingError(
                f"the data folder's name cannot name the run ({error}); give a name by --name"
            ) from None

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
    place = str(first["loc"][0]).replace("_", "-") if flag == "--" else str(first["loc"][0])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = message if message.startswith("expected") else f"expected {message}"
    return f"{flag}{place}: {expected}; received '{first['input']}'"
