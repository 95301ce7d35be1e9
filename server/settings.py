"""Every setting of the server, once: flags, environment variables, YAML file and docs/settings.md come from this model.

Precedence, weakest first: default < YAML file (`--config FILE` or SHOAL_CONFIG) < SHOAL_* variable < flag.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65_535)]
Provider = Literal["cpu", "cuda", "openvino"]


class Settings(BaseSettings):
    """How one server runs. Immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix="SHOAL_", frozen=True, extra="forbid", cli_kebab_case=True, cli_implicit_flags=True
    )

    models: Path = Field(Path("models"), description="Folder of bundles: <models>/<name>/<version>/.")
    default_model: str = Field(
        "", description="Model for requests that name none; empty: the only one, or the first by name."
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    http_port: Port = Field(8000, description="HTTP port; 0 lets the system choose one.")
    grpc_port: Port = Field(8001, description="gRPC port; 0 lets the system choose one.")

    providers: tuple[Provider, ...] = Field(
        ("cpu",),
        description="Execution providers allowed, best first. An unavailable one is an error unless one follows it.",
    )
    variant: str = Field(
        "auto", description="Which graph of a bundle to serve: auto (the fastest verified one here), float32, int8, ..."
    )
    intra_op_threads: int = Field(1, ge=1, le=256, description="ONNX Runtime threads for one batch, in each worker.")

    latency_budget_ms: float = Field(
        200, gt=0, description="Budget of a request that names no deadline of its own, in milliseconds."
    )
    max_batch_rows: int = Field(32, ge=1, le=4096, description="Rows in a batch at most.")
    max_delay_ms: float = Field(
        0, ge=0, le=1000, description="How long an idle engine waits for more rows, in milliseconds; 0 never waits."
    )
    max_queue_rows: int = Field(4096, ge=1, description="Rows that may wait for one model version.")
    max_queue_bytes: int = Field(256 << 20, ge=1, description="Bytes of rows that may wait for one model version.")
    max_body_bytes: int = Field(
        16 << 20, ge=1, description="Size of a request at most, after decompression, HTTP and gRPC alike."
    )
    max_image_pixels: int = Field(64_000_000, ge=1, description="Pixels of an uploaded picture at most, by its header.")

    poll_interval_s: float = Field(0.5, gt=0, description="How often the models folder is looked at, in seconds.")
    drain_grace_s: float = Field(
        0, ge=0, description="After SIGTERM: unready but still accepting for so long, in seconds."
    )
    drain_timeout_s: float = Field(
        30, gt=0, description="How long accepted requests may take to finish at a stop, in seconds."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Events below this level are not logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise."
    )

    @field_validator("providers", mode="before")
    @classmethod
    def _split_providers(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
