"""What the Open Inference Protocol tells of models, as documents: JSON as they are, messages by `json_format`."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from server.descriptions import ModelDescription
from server.metrics import RequestTotals, ServedVersion
from server.shelf import VersionState
from server.tensors import TensorSpec
from server.transports.codecs.v2 import DEFAULT_PRIORITY, PRIORITY_LEVELS

PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
EXTENSIONS: Final = (
    "classification",
    "model_configuration",
    "model_repository",
    "binary_tensor_data",
    "parameters",
    "schedule_policy",
    "statistics",
    "trace",
    "logging",
)
_STATES: Final = {"ready": "READY", "loading": "LOADING", "draining": "UNLOADING"}
_NS: Final = 1e9
_IMAGE_NDIM: Final = 4

Document = dict[str, Any]


def describe_model(model: ModelDescription, versions: Sequence[int]) -> Document:
    """A model's metadata.

    Args:
        model: The version that would answer.
        versions: The versions that can.
    """
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [_describe_tensor(spec) for spec in model.inputs],
        "outputs": [_describe_tensor(spec) for spec in model.outputs],
    }


def describe_config(model: ModelDescription, versions: Sequence[int]) -> Document:
    """A model's configuration, as far as Triton's form has words for it.

    Args:
        model: The version that would answer.
        versions: The versions that can.
    """
    batched = bool(model.inputs) and all(spec.batched for spec in (*model.inputs, *model.outputs))
    gpu = any(provider.startswith("CUDA") for provider in model.providers)
    config: Document = {
        "name": model.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"specific": {"versions": list(versions)}},
        "max_batch_size": model.max_batch_rows if batched else 0,
        "input": [_configure_input(spec, model, batched=batched) for spec in model.inputs],
        "output": [_configure(spec, batched=batched) for spec in model.outputs],
        "instance_group": [{"name": model.name, "count": 1, "kind": "KIND_GPU" if gpu else "KIND_CPU"}],
        "default_model_filename": "model.onnx",
        "parameters": {
            "variant": {"string_value": model.variant},
            "providers": {"string_value": ",".join(model.providers)},
        },
    }
    if batched:
        config["dynamic_batching"] = {
            "priority_levels": PRIORITY_LEVELS,
            "default_priority_level": DEFAULT_PRIORITY,
        }
    return config


def describe_statistics(served: Iterable[tuple[ServedVersion, RequestTotals]]) -> Document:
    """What versions have done so far.

    A batch's time by its size is the number of batches times the measured time of one: sizes are counted one by one,
    times are not.

    Args:
        served: Versions with their numbers.
    """
    return {"model_stats": [_describe_version(version, totals) for version, totals in served]}


def describe_index(states: Iterable[VersionState], *, only_ready: bool) -> list[Document]:
    """The repository's index.

    Args:
        states: Of every version.
        only_ready: Whether versions that cannot answer are left out.
    """
    return [
        {
            "name": state.name,
            "version": str(state.version),
            "state": _STATES.get(state.state, "UNAVAILABLE"),
            "reason": state.reason,
        }
        for state in states
        if state.state == "ready" or not only_ready
    ]


def _describe_tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configure(spec: TensorSpec, *, batched: bool) -> Document:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": kind, "dims": list(spec.shape[1:] if batched else spec.shape)}


def _configure_input(spec: TensorSpec, model: ModelDescription, *, batched: bool) -> Document:
    config = _configure(spec, batched=batched)
    if model.image is not None and batched and len(spec.shape) == _IMAGE_NDIM:
        config["format"] = "FORMAT_NHWC"
    return config


def _describe_version(served: ServedVersion, totals: RequestTotals) -> Document:
    answered = totals.answered
    return {
        "name": served.model,
        "version": str(served.version),
        "last_inference": round(totals.last_at_s * 1e3),
        "inference_count": served.numbers.rows,
        "execution_count": served.numbers.batches,
        "inference_stats": {
            "success": _duration(answered, totals.answered_s),
            "fail": _duration(totals.failed, totals.failed_s),
            "queue": _duration(answered, totals.queue_s),
            "compute_input": _duration(answered, totals.decode_s),
            "compute_infer": _duration(answered, totals.infer_s),
            "compute_output": _duration(answered, 0.0),
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(batches, 0.0),
                "compute_infer": _duration(batches, batches * _cost_s(served, rows)),
                "compute_output": _duration(batches, 0.0),
            }
            for rows, batches in sorted(served.numbers.batch_rows.items())
        ],
    }


def _cost_s(served: ServedVersion, rows: int) -> float:
    """The measured time of a batch of the next size that was measured."""
    costs = served.costs_s
    return costs[min((size for size in costs if size >= rows), default=max(costs))] if costs else 0.0


def _duration(count: int, seconds: float) -> Document:
    return {"count": count, "ns": max(0, round(seconds * _NS))}
