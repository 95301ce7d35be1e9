"""What the server tells of its models and of itself, whatever the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass

from protos.bundle_pb2 import Manifest
from server.images import ImageSpec
from server.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What is known of a loaded version.

    Args:
        name: The model's name.
        version: Its number.
        variant: The graph in use.
        providers: ONNX Runtime's execution providers in use.
        labels: Class names; empty where it has none.
        image: What its image input takes, or None.
        inputs: What the graph takes.
        outputs: What the graph answers.
        costs_s: Measured seconds of a batch, by its rows.
        max_batch_rows: Rows in a batch at most.
        manifest: What export wrote, or None for a plain `model.onnx`.
        map_shape: Height and width of its class-activation map, -1 where open; None where it has none.
    """

    name: str
    version: int
    variant: str
    providers: tuple[str, ...]
    labels: tuple[str, ...]
    image: ImageSpec | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    costs_s: Mapping[int, float]
    max_batch_rows: int
    manifest: Manifest | None
    map_shape: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How the server is.

    Args:
        status: "ok", "loading" (no model can answer yet) or "draining" (it is stopping).
        ready: Whether it should be sent requests.
        uptime_s: Seconds since it began.
        model: The model of requests that name none; empty where there is none.
        version: The version of it that answers by default; None where there is none.
    """

    status: str
    ready: bool
    uptime_s: float
    model: str
    version: int | None
