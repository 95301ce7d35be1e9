"""Every setting of an export, with its default, unit, bounds and help: flags and environment are generated from here.

Order: default < environment (`SHOAL_EXPORT_MIN_AGREEMENT=0.99`) < flag (`--min-agreement 0.99`).
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

FLOAT32: Final = "float32"
INT8: Final = "int8"
INT8_AMX: Final = "int8-amx"
FLOAT16: Final = "float16"
VARIANTS: Final = (FLOAT32, INT8, INT8_AMX, FLOAT16)
DEFAULT_VARIANTS: Final = (FLOAT32, INT8, INT8_AMX)
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Gates(BaseSettings):
    """What a variant must reach on the hold-out rows to be written.

    Drops are shares of 1: 0.003 is 0.3 points. One row is always allowed, because a small hold-out split cannot
    resolve less: with 360 rows, one row is 0.28 points.
    """

    model_config = SettingsConfigDict(env_prefix="SHOAL_EXPORT_", frozen=True, extra="ignore")

    max_difference: Share = Field(
        default=1e-4, description="float32: largest difference of any probability from Keras's"
    )
    min_agreement: Share = Field(default=0.985, description="least share of hold-out rows with Keras's own top-1 class")
    max_accuracy_drop: Share = Field(
        default=0.003, description="largest loss of hold-out accuracy; 0.003 is 0.3 points"
    )
    max_class_drop: Share = Field(default=0.05, description="largest loss of accuracy within any one class")
    max_float16_difference: Share = Field(
        default=0.01, description="float16: largest difference of any probability from Keras's"
    )
    min_speedup: float = Field(
        default=0.0, ge=0.0, description="int8: least images/s at one thread, as a multiple of float32's; 0 is no gate"
    )
    max_size_ratio: float = Field(
        default=1.0, gt=0.0, description="int8 and float16: largest file, as a multiple of float32's"
    )
    min_amx_gain: float = Field(
        default=1.05,
        ge=0.0,
        description="int8-amx: least images/s at one thread, as a multiple of int8's; 0 makes it for another machine",
    )
    max_calibration_drift: float = Field(
        default=0.25,
        ge=0.0,
        description="int8: largest population stability index of the calibration rows' pixels against the hold-out"
        " rows'; 0.1 is little, 0.25 is much",
    )


class ExportSettings(BaseSettings):
    """How a run folder becomes a bundle."""

    model_config = SettingsConfigDict(env_prefix="SHOAL_EXPORT_", frozen=True, extra="ignore")

    runs: Path = Field(default=Path("runs"), description="folder of run folders, <runs>/<name>/<number>/")
    models: Path = Field(default=Path("models"), description="folder of bundles, <models>/<name>/<version>/")
    variants: Annotated[tuple[str, ...], NoDecode] = Field(
        default=DEFAULT_VARIANTS,
        description="variants to make, out of float32, int8, int8-amx and float16, separated by commas; float32 is"
        " always made, and int8-amx only with int8",
    )
    opset: int = Field(default=17, ge=13, le=21, description="ONNX operator set; 18 and later add a transpose")
    calibration: Literal["auto", "minmax", "percentile", "entropy"] = Field(
        default="auto",
        description="how int8 ranges are found; auto tries minmax first and the others only when it misses",
    )
    first_layer: Literal["auto", "int8", "float32"] = Field(
        default="auto",
        description="int8: the first layer's arithmetic; auto measures both and keeps the faster that passes",
    )
    pixel_groups: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="int8: compute narrow layers for several pixels at once; auto measures both and keeps the faster,"
        " and the answers are the same",
    )
    sensitivity: bool = Field(
        default=True,
        description="int8: when no calibration passes, find the layers that hurt most and leave them in float32",
    )
    qat_epochs: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="int8: when all else misses a gate by its answers, fine-tune a copy under int8's rounding for so"
        " many passes over the calibration rows; 0: never",
    )
    qat_learning_rate: float = Field(
        default=3e-4, gt=0, le=1, description="of that fine-tuning at its start; it falls to zero"
    )
    activation_map: bool = Field(
        default=True, description="write model.explain.onnx, the class-activation map, where the architecture allows it"
    )
    sign_key: Path | None = Field(default=None, description="private key to sign the manifest with, of `keygen`")
    trusted_keys: Path | None = Field(
        default=None,
        description="public key, or a folder of them: a bundle that none of them has signed is refused",
    )
    golden_images: int = Field(default=16, ge=1, le=256, description="least number of golden images in the bundle")
    golden_tolerance: Share = Field(
        default=1e-3,
        description="how far a server's float32 answer to a golden image may be from Keras's, on any machine",
    )

    @field_validator("variants", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return value
        wanted = [str(name).strip() for name in names]
        unknown = [name for name in wanted if name not in VARIANTS]
        if unknown:
            raise ValueError(f"expected variants out of {', '.join(VARIANTS)}, received {', '.join(unknown)!r}")
        return tuple(name for name in VARIANTS if name == FLOAT32 or name in wanted)
