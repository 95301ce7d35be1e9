"""Every setting of the server, once: flags, environment variables, YAML file and docs/settings.md come from this model.

Precedence, weakest first: default < YAML file (`--config FILE` or SHOAL_CONFIG) < SHOAL_* variable < flag.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from server.cores import Pinning

ENV_PREFIX: Final = "SHOAL_"
Port = Annotated[int, Field(ge=0, le=65_535)]
_ORIGIN: Final = re.compile(r"https?://[^/\s?#@]+")
GrpcHost = Literal["auto", "grpcio", "native"]
Provider = Literal["cpu", "cuda", "openvino"]


class Settings(BaseSettings):
    """How one server runs. Immutable once read."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    config: Path | None = Field(None, description="YAML file of settings, named as here: `http_port: 9000`.")

    models: Path = Field(Path("models"), description="Folder of bundles: <models>/<name>/<version>/.")
    default_model: str = Field(
        "", description="Model for requests that name none; empty: the only one, or the first by name."
    )
    variant: str = Field(
        "auto", description="Which graph of a bundle to serve: auto (the fastest verified one here), float32, int8, ..."
    )
    versions: str = Field(
        "latest",
        description="Versions to load of each model without a policy.json: latest, latest:N, all, or a list: 3,4.",
    )
    model_control: Literal["poll", "none", "explicit"] = Field(
        "poll", description="poll: follow the models folder. none: load once. explicit: load what is asked for."
    )
    trusted_keys: Path | None = Field(
        None,
        description="Public key, or a folder of them: one must have signed a bundle. Unset: no signature is asked for.",
    )
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Models to load at the start with --model-control explicit."
    )
    poll_interval_s: float = Field(
        0.5, gt=0, le=1, description="How often the models folder is looked at, policies included, in seconds."
    )

    rollback_window_s: float = Field(
        120,
        ge=0,
        description="How long a new version is on probation, the one before kept loaded; in seconds, 0: never.",
    )
    rollback_min_requests: int = Field(20, ge=1, description="Fewer requests than this prove nothing of a new version.")
    rollback_max_error_rate: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of requests that may fail beyond those that failed with the version before.",
    )
    rollback_max_latency_ratio: float = Field(
        4, ge=1, description="How many times as long as with the version before its batches may take."
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    http_port: Port = Field(8000, description="HTTP port; 0 lets the system choose one.")
    grpc_port: Port = Field(8001, description="gRPC port; 0 lets the system choose one.")
    metrics_port: Port = Field(
        0, description="Port for /metrics and /health/live alone; 0: none, metrics are on the HTTP port only."
    )
    grpc_host: GrpcHost = Field(
        "auto",
        description="What speaks HTTP/2 for gRPC: grpcio, or native (pip install shoal[native]), which takes less of a"
        " core but has no TLS. auto: native where it is installed and can serve.",
    )
    ports_file: Path | None = Field(
        None, description='File to write {"http": port, "grpc": port, "pid": process} to once the server is ready.'
    )

    providers: Annotated[tuple[Provider, ...], NoDecode] = Field(
        ("cpu",),
        description="Execution providers allowed, best first, joined by commas."
        " An unavailable one is an error unless one follows it. Of openvino,cpu the faster one serves.",
    )
    devices: Annotated[tuple[NonNegativeInt, ...], NoDecode] = Field(
        (),
        description="CUDA devices, joined by commas; the workers are dealt out to them in turn, so several may share"
        " one. Empty: ONNX Runtime's default.",
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Serving processes. 0: one for each core that affinity and cgroup quota leave. 1: no supervisor.",
    )
    pin_workers: Pinning = Field(
        "auto",
        description="What of a worker keeps to cores of its own. loop: its event loop, so that no two of them wait for"
        " each other. all: all of its threads, for workers of several threads each on a machine of several packages;"
        " each gets a share of neighbouring cores. auto: loop where there is a worker for each core and no cgroup quota"
        " leaves less, else never.",
    )
    intra_op_threads: int = Field(1, ge=1, le=256, description="ONNX Runtime threads for one batch, in each worker.")
    inline_batch_ms: float | None = Field(
        None,
        ge=0,
        le=10,
        description="Batches expected to take no longer, in milliseconds, run on the event loop, which saves them the"
        " way to a thread and back; 0: none does. Unset: 4 where there is a worker for each core and the model runs on"
        " the CPU, else 1.",
    )
    decode_threads: int = Field(2, ge=1, le=64, description="Threads that decode large pictures, in each worker.")

    latency_budget_ms: float = Field(
        200, gt=0, description="Budget of a request that names no deadline of its own, in milliseconds."
    )
    max_batch_rows: int = Field(32, ge=1, le=4096, description="Rows in a batch at most.")
    max_delay_ms: float = Field(
        0, ge=0, le=1000, description="How long an idle engine waits for more rows, in milliseconds; 0 never waits."
    )
    max_queue_rows: int = Field(4096, ge=1, description="Rows that may wait for one model version.")
    max_queue_bytes: int = Field(256 << 20, ge=1, description="Bytes of rows that may wait for one model version.")

    response_cache_bytes: int = Field(
        0, ge=0, description="What remembered answers may take in each worker, so that equal inputs run once; 0: off."
    )

    max_body_bytes: int = Field(
        16 << 20, ge=1, description="Size of a request at most, after decompression, HTTP and gRPC alike."
    )
    max_image_pixels: int = Field(64_000_000, ge=1, description="Pixels of an uploaded picture at most, by its header.")
    stream_window: int = Field(
        64, ge=1, le=4096, description="Requests of one gRPC stream that are worked on at the same time."
    )

    request_timeout_s: float = Field(
        60, gt=0, description="How long the head and the body of an HTTP request may take to arrive, in seconds."
    )
    rate_limit_per_s: float = Field(
        0,
        ge=0,
        description="Requests, and messages of gRPC streams, that one client may send per second, over all workers;"
        " 0: any number. A client is a key's name, a token's subject, or an address where neither is asked for.",
    )
    max_concurrent_per_client: int = Field(
        0, ge=0, description="Requests of one client under way at a time, in each worker; 0: any number."
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks of proxies whose X-Forwarded-For is believed, 10.0.0.0/8,192.0.2.7: limits and logs then"
        " go by the client's address; anybody else's is not looked at.",
    )

    api_keys: Path | None = Field(
        None, description="File of hashed API keys; `python -m server keys new NAME` makes one."
    )
    jwt_key_file: Path | None = Field(
        None, description="File of shared secrets for tokens by HS256, one a line, of 32 bytes or more."
    )
    jwks: str = Field(
        "", description="Public keys for tokens by RS256, ES256 and EdDSA: a JSON Web Key Set's https:// URL or file."
    )
    jwks_refresh_s: float = Field(300, gt=0, description="How old fetched public keys may become, in seconds.")
    jwt_issuer: str = Field("", description="`iss` of every token; empty: any.")
    jwt_audience: str = Field("", description="`aud` that every token has to have; empty: any, which --jwks forbids.")
    jwt_leeway_s: float = Field(
        30,
        ge=0,
        le=600,
        description="How far the clocks of a token's issuer and of this machine may be apart, in seconds.",
    )
    jwt_revoked: Path | None = Field(
        None,
        description="File of the `jti` of single tokens that were taken back, one a line; with it every token needs a"
        " `jti`.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Web pages of other origins that may use the server, https://a.example,https://b.example; *: all.",
    )

    tls_cert: Path | None = Field(
        None, description="PEM file of the server's certificate chain: HTTPS, and gRPC over TLS. Read anew on change."
    )
    tls_key: Path | None = Field(None, description="PEM file of that certificate's private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of those who sign clients' certificates; with it every client has to have one."
    )

    prediction_log: str = Field(
        "",
        description="Database for a log of predictions: sqlite (predictions.db here), sqlite:///FILE or"
        " postgresql://USER@HOST/NAME; empty: none is kept. Best set by its variable where it holds a password.",
    )
    prediction_log_inputs: Literal["digest", "whole"] = Field(
        "digest", description="What the log keeps of an input. digest: its SHA-256 alone. whole: the picture too."
    )
    prediction_log_retention_days: float = Field(
        30, ge=0, description="How long the log keeps predictions, pictures and feedback, in days; 0: for ever."
    )
    prediction_log_spool: Path | None = Field(
        None,
        description="Folder where answers wait for the log's database. Unset: beside an SQLite file, as FILE-spool; for"
        " PostgreSQL among the system's temporary files.",
    )
    prediction_log_spool_bytes: int = Field(
        512 << 20,
        ge=1 << 20,
        description="What may wait there, for each worker, in bytes; what is over is dropped and counted. From half of"
        " it on, writing to the database takes its full share of the processor.",
    )
    prediction_log_stop_s: float = Field(
        4,
        ge=0,
        description="How long a stop waits until what was answered is in the database, in seconds; the rest is written"
        " at the next start.",
    )
    drift_window_rows: int = Field(
        5000,
        ge=0,
        le=1_000_000,
        description="Latest rows, in each worker, that are compared with the bundle's reference, and latest feedbacks"
        " that live accuracy is of; 0: drift is not watched.",
    )

    drain_grace_s: float = Field(
        0, ge=0, description="After SIGTERM: unready but still accepting for so long, in seconds."
    )
    drain_timeout_s: float = Field(
        30, gt=0, description="How long accepted requests may take to finish at a stop, in seconds."
    )

    log_slow_ms: float = Field(
        0,
        ge=0,
        description="Requests that take longer are logged with their ids, at most 10 a second; milliseconds, 0: none.",
    )
    traces: str = Field(
        "",
        description="Where OpenTelemetry traces go by OTLP over HTTP, such as http://collector:4318; empty: nowhere.",
    )
    traces_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests that are traced, of those that are part of no trace of their callers'.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Events below this level are not logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise."
    )

    def of_slot(self, slot: int) -> Self:
        """The settings of one of several workers: its own device, where devices are named.

        Args:
            slot: Which place among the workers it fills, from 0.
        """
        if not self.devices:
            return self
        return self.model_copy(update={"devices": (self.devices[slot % len(self.devices)],)})

    @field_validator("devices", "preload", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        origins = value.split(",") if isinstance(value, str) else value
        if not isinstance(origins, (list, tuple)):
            raise ValueError("a list of origins such as https://a.example,https://b.example")  # noqa: TRY004  pydantic's
        names = tuple(str(origin).strip() for origin in origins if origin)
        if wrong := [name for name in names if name != "*" and not _ORIGIN.fullmatch(name)]:
            raise ValueError(f"origins of the form https://host or https://host:port, not {wrong[0][:80]!r}")
        return names

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        networks = value.split(",") if isinstance(value, str) else value
        if not isinstance(networks, (list, tuple)):
            raise ValueError("a list of networks such as 10.0.0.0/8,192.0.2.7")  # noqa: TRY004  pydantic's
        return tuple(str(ip_network(str(network).strip())) for network in networks if network)

    @field_validator("providers", mode="before")
    @classmethod
    def _split_providers(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not names:
            raise ValueError("a list of providers such as cuda,cpu")
        return tuple(str(name).strip() for name in names)

    @model_validator(mode="after")
    def _check_ports_differ(self) -> Self:
        if self.http_port == self.grpc_port != 0:
            raise ValueError("two different ports for HTTP and gRPC")
        if self.metrics_port in {self.http_port, self.grpc_port} - {0}:
            raise ValueError("a port for metrics that is neither HTTP's nor gRPC's")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  a .env file is for make and compose to read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  Kubernetes mounts secrets as variables here
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then variables, then the YAML file that either of them names."""
        assert isinstance(init_settings, InitSettingsSource)
        path = init_settings.init_kwargs.get("config") or os.environ.get(ENV_PREFIX + "CONFIG")
        file = (YamlConfigSettingsSource(settings_cls, yaml_file=Path(path)),) if path else ()
        return init_settings, env_settings, *file


# How --help and docs/settings.md arrange the settings; each is in exactly one group.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "What to serve": (
        "models",
        "default_model",
        "variant",
        "versions",
        "model_control",
        "preload",
        "poll_interval_s",
        "trusted_keys",
    ),
    "Taking a new version back": (
        "rollback_window_s",
        "rollback_min_requests",
        "rollback_max_error_rate",
        "rollback_max_latency_ratio",
    ),
    "Where to listen": ("host", "http_port", "grpc_port", "grpc_host", "metrics_port", "ports_file"),
    "What runs the model": (
        "workers",
        "pin_workers",
        "providers",
        "devices",
        "intra_op_threads",
        "inline_batch_ms",
        "decode_threads",
    ),
    "Latency and batches": ("latency_budget_ms", "max_batch_rows", "max_delay_ms", "max_queue_rows", "max_queue_bytes"),
    "Answers that repeat": ("response_cache_bytes",),
    "Limits": (
        "max_body_bytes",
        "max_image_pixels",
        "stream_window",
        "request_timeout_s",
        "rate_limit_per_s",
        "max_concurrent_per_client",
        "trusted_proxies",
    ),
    "Who may ask": (
        "api_keys",
        "jwt_key_file",
        "jwks",
        "jwks_refresh_s",
        "jwt_issuer",
        "jwt_audience",
        "jwt_leeway_s",
        "jwt_revoked",
        "cors_origins",
    ),
    "TLS": ("tls_cert", "tls_key", "tls_client_ca"),
    "What was answered": (
        "prediction_log",
        "prediction_log_inputs",
        "prediction_log_retention_days",
        "prediction_log_spool",
        "prediction_log_spool_bytes",
        "prediction_log_stop_s",
        "drift_window_rows",
    ),
    "Stopping": ("drain_grace_s", "drain_timeout_s"),
    "Logs, traces and configuration": ("log_level", "log_format", "log_slow_ms", "traces", "traces_share", "config"),
}
