"""What a bundle says about itself: the manifest for the server, the report for people.

Run + measured variants + golden set ──▶ manifest.json   what is in the bundle and what it was measured to do
                                     └─▶ export.json     every gate, what was tried, what was refused and why
"""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from export.bundle import sha256
from export.golden import Golden
from export.graph import INPUT, OUTPUT
from export.run_folder import Run
from export.settings import ExportSettings, Gates
from export.times import now
from export.verify import Comparison
from protos import bundle_pb2
from server.images import RESIZE

SCHEMA: Final = 1
TOOLS: Final = ("keras", "tensorflow-cpu", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")
# Of run.json, what the manifest says already or what is no setting of the training.
_NOT_SETTINGS: Final = (
    "schema",
    "name",
    "labels",
    "created_at",
    "duration_s",
    "data",
    "tools",
    "image",
    "git_revision",
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One graph that was built and measured.

    Args:
        variant: The variant it would be.
        recipe: How it was made.
        comparison: Against Keras, on the hold-out rows.
        images_per_s: At one thread.
        speedup: As a multiple of float32's images/s.
        size_bytes: Of its file.
        operators: How many nodes of each operator.
        reasons: The gates that it missed; none for a variant that may be written.
    """

    variant: str
    recipe: str
    comparison: Comparison
    images_per_s: float
    speedup: float
    size_bytes: int
    operators: dict[str, int]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A variant that passed and is in the bundle.

    Args:
        attempt: What was measured, of the file as it was read back.
        path: Its file.
    """

    attempt: Attempt
    path: Path


def build_manifest(
    run: Run,
    name: str,
    version: int,
    written: Sequence[Written],
    golden: bundle_pb2.GoldenSet,
    *,
    sbom: Path,
    explanation: bundle_pb2.Explanation | None,
    reference: bundle_pb2.Reference | None = None,
) -> bundle_pb2.Manifest:
    """Fills a manifest in.

    Args:
        run: Where the model comes from.
        name: Of the model.
        version: Of the bundle.
        written: Variants, float32 first.
        golden: The golden set.
        sbom: The list of packages.
        explanation: The class-activation map's graph; None where the architecture has none.
        reference: What live traffic is compared with; None for nothing.
    """
    facts, image = run.facts, run.image
    preprocessing = facts.get("preprocessing", {})
    return bundle_pb2.Manifest(
        schema=SCHEMA,
        name=name,
        version=version,
        created_at=now(),
        architecture=str(facts.get("model", "")),
        framework=str(facts.get("framework", "")),
        parameters=int(facts.get("parameters", 0)),
        inputs=[bundle_pb2.Tensor(name=INPUT, datatype="UINT8", shape=[-1, *image.shape])],
        outputs=[bundle_pb2.Tensor(name=OUTPUT, datatype="FP32", shape=[-1, len(run.labels)])],
        labels=run.labels,
        preprocessing=bundle_pb2.Preprocessing(
            height=image.height_px,
            width=image.width_px,
            channels=image.channels,
            resize=RESIZE,
            scale=float(preprocessing.get("scale", 1 / 255)),
            offset=float(preprocessing.get("offset", 0.0)),
        ),
        variants=[_variant(one) for one in written],
        golden=golden,
        dataset=_dataset(facts.get("data", {})),
        training=_training(run),
        tools=tools(),
        sbom=file_entry(sbom),
        explanation=explanation,
        reference=reference,
    )


def file_entry(path: Path) -> bundle_pb2.File:
    """Describes a file as it is on disk now.

    Args:
        path: Of a bundle.
    """
    return bundle_pb2.File(file=path.name, sha256=sha256(path), size_bytes=path.stat().st_size)


def _variant(written: Written) -> bundle_pb2.Variant:
    attempt, path = written.attempt, written.path
    return bundle_pb2.Variant(
        name=attempt.variant,
        file=path.name,
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        accuracy=attempt.comparison.accuracy,
        agreement=attempt.comparison.agreement,
        max_abs_difference=attempt.comparison.max_difference,
        images_per_s=attempt.images_per_s,
        measured_rows=attempt.comparison.rows,
    )


def _dataset(data: dict[str, Any]) -> bundle_pb2.Dataset:
    rows = {str(split): int(count) for split, count in data.get("rows", {}).items()}
    return bundle_pb2.Dataset(
        source=str(data.get("source", "")), fingerprint=str(data.get("fingerprint", "")), rows=rows
    )


def _training(run: Run) -> bundle_pb2.Training:
    measured = run.metrics.get("test", {})
    metrics = {key: float(measured[key]) for key in ("accuracy", "loss") if key in measured}
    return bundle_pb2.Training(
        run=str(run.number),
        seed=int(run.facts.get("seed") or 0),
        git_revision=str(run.facts.get("git_revision") or ""),
        epochs=int(run.facts.get("epochs") or 0),
        metrics=metrics,
    )


def golden_set(path: Path, golden: Golden, tolerance: float) -> bundle_pb2.GoldenSet:
    """Describes the golden file.

    Args:
        path: The file.
        golden: What is in it.
        tolerance: Of any probability, for whoever replays it.
    """
    return bundle_pb2.GoldenSet(file=path.name, sha256=sha256(path), images=len(golden.files), tolerance=tolerance)


def build_report(
    *,
    run: Run,
    settings: ExportSettings,
    gates: Gates,
    attempts: Sequence[Attempt],
    written: Sequence[Written],
    reference_accuracy: float,
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Collects what people and later tools ask of an export.

    Args:
        run: Where the model comes from.
        settings: Of this export.
        gates: Its limits.
        attempts: Everything that was measured, kept or not.
        written: What is in the bundle.
        reference_accuracy: Keras's own on the hold-out rows.
        measured: Whatever else was measured, by name; `refusals` are variants that were not even tried.
    """
    refusals = [{"variant": name, "reasons": reasons} for name, reasons in measured.pop("refusals", {}).items()]
    kept = {one.attempt.variant: one for one in written}
    return {
        "schema": SCHEMA,
        "created_at": now(),
        "run": str(run.folder),
        "settings": settings.model_dump(mode="json"),
        "gates": gates.model_dump(mode="json"),
        "training": {key: value for key, value in run.facts.items() if key not in _NOT_SETTINGS},
        "reference_accuracy": reference_accuracy,
        "variants": {one.attempt.variant: _as_json(one.attempt) for one in written},
        "refused": [*refusals, *(_as_json(one) for one in _refused(attempts) if one.variant not in kept)],
        "tried": [_as_json(attempt) for attempt in attempts],
        **measured,
        "machine": {"processor": _processor(), "python": platform.python_version(), "system": platform.platform()},
    }


def _refused(attempts: Sequence[Attempt]) -> list[Attempt]:
    # One line for each variant: of the attempts that missed a gate, the one that came nearest, by agreement.
    nearest: dict[str, Attempt] = {}
    for attempt in (one for one in attempts if one.reasons):
        known = nearest.get(attempt.variant)
        if known is None or attempt.comparison.agreement > known.comparison.agreement:
            nearest[attempt.variant] = attempt
    return list(nearest.values())


def _as_json(attempt: Attempt) -> dict[str, Any]:
    # NaN and infinity are no JSON; a broken variant may have measured them.
    values = {key: _finite(value) for key, value in asdict(attempt).items()}
    return {**values, "comparison": {key: _finite(value) for key, value in asdict(attempt.comparison).items()}}


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not (abs(value) < float("inf")) else value


def tools() -> dict[str, str]:
    """Versions of the packages that made the bundle."""
    found = {"python": platform.python_version()}
    for package in TOOLS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
