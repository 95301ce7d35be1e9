"""One export, from a run folder to a bundle that the server may load.

    find run ─▶ Keras's answers ─▶ convert ─▶ float32 gate ─▶ int8, float16, activation map: build, measure, gate
                                                 │ missed                          │
                                                 ▼                                 ▼
                                        nothing, exit code 3       read back, verify again ─▶ golden ─▶ sign ─▶ rename

What is gated is the file as it was read back from disk, not the graph in memory that it was written from.
"""

import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export import bundle, convert, run_checks, sbom, signing, verify
from export.errors import GateFailed
from export.explain import write_explanation
from export.exporter import FILES, Exporter, Say, stage_timer
from export.float16 import write_float16
from export.golden import Golden, make_golden
from export.int8 import write_int8
from export.manifest import TOOLS, Written, build_manifest, build_report, golden_set
from export.openvino import measure_openvino
from export.reference import build_reference
from export.run_folder import Run, find_run
from export.settings import FLOAT16, FLOAT32, INT8, ExportSettings, Gates
from protos import bundle_pb2

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024  # in what unit getrusage tells memory


@dataclass(frozen=True, slots=True)
class Result:
    """What an export wrote.

    Args:
        folder: The bundle.
        manifest: As written.
        report: As written to `export.json`.
        duration_s: Of the whole export.
    """

    folder: Path
    manifest: bundle_pb2.Manifest
    report: dict[str, Any]
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    run: Run
    settings: ExportSettings
    gates: Gates
    say: Say
    key: "Ed25519PrivateKey | None"
    started_s: float


def create(name: str, run_number: str, settings: ExportSettings, gates: Gates, say: Say) -> Result:
    """Exports one run.

    Args:
        name: Of the model.
        run_number: A run's number, or `latest`.
        settings: Of this export.
        gates: What a variant must reach.
        say: Takes a line for each stage.

    Returns:
        What was written.

    Raises:
        ExportError: The input is not what it should be; nothing visible was written.
        GateFailed: The float32 reference missed its gate; nothing visible was written.
    """
    started_s = time.perf_counter()
    run = find_run(settings.runs, name, run_number)
    key = signing.read_private_key(settings.sign_key) if settings.sign_key else None
    job = _Job(name, run, settings, gates, say, key, started_s)
    with bundle.exclusive(settings.models, name, say), bundle.staging(settings.models, name) as stage:
        say(f"export {run.folder} to {stage.target}")
        manifest, report = _fill(stage, job)
        folder = stage.publish()
    return Result(folder, manifest, report, time.perf_counter() - started_s)


def _fill(stage: bundle.Staging, job: _Job) -> tuple[bundle_pb2.Manifest, dict[str, Any]]:
    run, settings = job.run, job.settings
    holdout, calibration = run.rows("holdout"), run.rows("calibration")
    golden = make_golden(run.samples(), holdout, run.image, settings.golden_images)
    with stage_timer(job.say, "Keras"):
        keras_model = convert.load_keras(run.model_path, run.image, len(run.labels))
        reference = convert.predict(keras_model, holdout.pixels)
        expected = convert.predict(keras_model, golden.pixels)
        accuracy = run_checks.check_reference(run, reference, holdout)
    exporter = Exporter(run, settings, job.gates, job.say, holdout, reference)
    with stage_timer(job.say, "convert"):
        properties = {"shoal.name": job.name, "shoal.run": str(run.number)}
        float32 = convert.to_onnx(keras_model, opset=settings.opset, properties=properties)
        run_checks.check_scaling(run, float32)
    written = [_write_float32(exporter, stage, float32, golden, expected)]
    if INT8 in settings.variants:
        written += write_int8(exporter, stage, keras_model, float32, calibration)
    if FLOAT16 in settings.variants:
        written += write_float16(exporter, stage, float32)
    with stage_timer(job.say, "OpenVINO"):
        openvino = measure_openvino(exporter, written)
    explanation = write_explanation(exporter, stage, float32) if settings.activation_map else None
    golden_path = stage.write_npz(bundle.GOLDEN, golden.arrays(expected, run.labels))
    described = golden_set(golden_path, golden, settings.golden_tolerance)
    listed = stage.write_json(bundle.SBOM, sbom.build_sbom(job.name, stage.version, TOOLS))
    manifest = build_manifest(
        run,
        job.name,
        stage.version,
        written,
        described,
        sbom=listed,
        explanation=explanation,
        reference=build_reference(holdout.pixels, reference),
    )
    report = build_report(
        run=run,
        settings=settings,
        gates=job.gates,
        attempts=exporter.attempts,
        written=written,
        reference_accuracy=accuracy,
        measured={"openvino": openvino, **_measured(exporter, job.started_s)},
    )
    stage.write_json(bundle.REPORT, report)
    stage.write(bundle.MANIFEST, bundle.manifest_json(manifest))
    if job.key is not None:
        signing.sign(stage.folder, job.key)
    return manifest, report


def _measured(exporter: Exporter, started_s: float) -> dict[str, Any]:
    return {
        "refusals": exporter.refusals,
        "calibration_drift": asdict(exporter.drift) if exporter.drift else None,
        "sensitivity": exporter.sensitivity,
        "duration_s": round(time.perf_counter() - started_s, 2),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES,
    }


def _write_float32(
    exporter: Exporter, stage: bundle.Staging, model: ModelProto, golden: Golden, expected: NDArray[np.float32]
) -> Written:
    path = stage.write(FILES[FLOAT32], model.SerializeToString())
    with stage_timer(exporter.say, "verify float32"):
        data = exporter.float32_bytes = path.read_bytes()
        exporter.float32_images_per_s = exporter.speeds({})[FLOAT32]
        attempt = exporter.measure(FLOAT32, "tf2onnx", data, exporter.float32_images_per_s)
        replayed = verify.answer(verify.open_session(data), golden.pixels)
        difference = float(np.abs(replayed - expected).max())
    reasons = list(attempt.reasons)
    if not difference <= exporter.gates.max_difference:
        limit = exporter.gates.max_difference
        reasons.append(f"golden images: expected a difference of at most {limit:.6g}, received {difference:.6g}")
    if reasons:
        raise GateFailed(f"float32 is not the model that Keras trained, nothing was written: {'; '.join(reasons)}")
    return Written(attempt, path)
