"""One export, from a run folder to a bundle that the server may load.

    find run ─▶ Keras's answers ─▶ convert ─▶ float32 gate ─▶ quantize: build, measure, keep the fastest that passes
                                                 │ missed                          │
                                                 ▼                                 ▼
                                        nothing, exit code 3       read back, verify again ─▶ golden ─▶ rename

What is gated is the file as it was read back from disk, not the graph in memory that it was written from.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from export import bundle, convert, quantize, verify
from export.errors import ExportError, GateFailed
from export.golden import Golden, make_golden
from export.graph import operators, pixel_chain
from export.manifest import Attempt, Written, build_manifest, build_report, golden_set
from export.run_folder import Rows, Run, find_run
from export.settings import FLOAT32, INT8, ExportSettings, Gates
from protos import bundle_pb2

Say = Callable[[str], None]
FILES: Final = {FLOAT32: "model.onnx", INT8: "model.int8.onnx"}
REFERENCE_TOLERANCE: Final = 0.01  # of accuracy: the same weights in another precision or batch stay well inside
SUM_TOLERANCE: Final = 1e-3


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


@dataclass(slots=True)
class Exporter:
    """The state of one export.

    Args:
        run: Where the model comes from.
        settings: Of this export.
        gates: Its limits.
        say: Takes a line for each stage.
        holdout: Rows to verify on.
        reference: `float32[n, classes]`, Keras's answers to them.
        attempts: Everything measured so far.
    """

    run: Run
    settings: ExportSettings
    gates: Gates
    say: Say
    holdout: Rows
    reference: NDArray[np.float32]
    attempts: list[Attempt] = field(default_factory=list)
    float32_images_per_s: float = 0.0

    def measure(self, variant: str, recipe: str, model: bytes, speed: float) -> Attempt:
        """Compares one graph with Keras on every hold-out row, and gates it.

        Args:
            variant: Its name.
            recipe: How it was made.
            model: Serialised.
            speed: Its images/s.
        """
        answers = verify.answer(verify.open_session(model), self.holdout.pixels)
        comparison = verify.compare(answers, self.reference, self.holdout.labels)
        speedup = speed / self.float32_images_per_s
        reasons = tuple(verify.gate(variant, comparison, speedup, self.gates))
        kinds = operators(onnx.load_from_string(model))
        attempt = Attempt(variant, recipe, comparison, speed, speedup, len(model), kinds, reasons)
        self.attempts.append(attempt)
        return attempt

    def speeds(self, models: dict[str, bytes]) -> dict[str, float]:
        """Measures images/s of several graphs side by side.

        Args:
            models: Serialised, by name.
        """
        sessions = {name: verify.open_session(model) for name, model in models.items()}
        return verify.images_per_s(sessions, self.holdout.pixels)


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
    started = time.perf_counter()
    run = find_run(settings.runs, name, run_number)
    with bundle.exclusive(settings.models, name, say), bundle.staging(settings.models, name) as stage:
        say(f"export {run.folder} to {stage.target}")
        manifest, report = _fill(stage, name=name, run=run, settings=settings, gates=gates, say=say)
        folder = stage.publish()
    return Result(folder, manifest, report, time.perf_counter() - started)


def _fill(
    stage: bundle.Staging, *, name: str, run: Run, settings: ExportSettings, gates: Gates, say: Say
) -> tuple[bundle_pb2.Manifest, dict[str, Any]]:
    holdout, calibration = run.rows("holdout"), run.rows("calibration")
    golden = make_golden(run.samples(), holdout, run.image, settings.golden_images)
    with _stage(say, "Keras"):
        keras_model = convert.load_keras(run.model_path, run.image, len(run.labels))
        reference = convert.predict(keras_model, holdout.pixels)
        expected = convert.predict(keras_model, golden.pixels)
        accuracy = _check_reference(run, reference, holdout)
    exporter = Exporter(run, settings, gates, say, holdout, reference)
    with _stage(say, "convert"):
        properties = {"shoal.name": name, "shoal.run": str(run.number)}
        float32 = convert.to_onnx(keras_model, opset=settings.opset, properties=properties)
        _check_scaling(run, float32)
    written = [_write_float32(exporter, stage, float32, golden, expected)]
    if INT8 in settings.variants:
        written += _write_int8(exporter, stage, float32, calibration, written[0].path)
    golden_path = stage.write_npz(bundle.GOLDEN, golden.arrays(expected))
    described = golden_set(golden_path, golden, settings.golden_tolerance)
    manifest = build_manifest(run, name, stage.version, written, described)
    report = build_report(
        run=run,
        settings=settings,
        gates=gates,
        attempts=exporter.attempts,
        written=written,
        reference_accuracy=accuracy,
    )
    stage.write_json(bundle.REPORT, report)
    stage.write(bundle.MANIFEST, bundle.manifest_json(manifest))
    return manifest, report


def _check_reference(run: Run, reference: NDArray[np.float32], holdout: Rows) -> float:
    sums = reference.astype(np.float64).sum(1)
    if not np.all(np.abs(sums - 1.0) < SUM_TOLERANCE):
        raise ExportError(
            f"{run.model_path}: expected probabilities that sum to 1, received sums {sums.min():.4g}..{sums.max():.4g};"
            " end the model with a softmax"
        )
    accuracy = float((reference.argmax(1) == holdout.labels).mean())
    measured = run.metrics.get("test", {}).get("accuracy")
    whole = run.facts.get("data", {}).get("rows", {}).get("test") == len(holdout)
    if measured is not None and whole and abs(accuracy - float(measured)) > max(REFERENCE_TOLERANCE, 1 / len(holdout)):
        raise ExportError(
            f"{run.folder}: expected the accuracy of metrics.json, {float(measured):.4f}, received {accuracy:.4f} from"
            " model.keras on holdout.npz: the files are not of one run; train again"
        )
    return accuracy


def _check_scaling(run: Run, model: ModelProto) -> None:
    chain, said = pixel_chain(model), run.facts.get("preprocessing", {})
    if chain is None or not chain.casts or "scale" not in said:
        return
    expected = (float(said["scale"]), float(said.get("offset", 0.0)))
    if not np.allclose((chain.scale, chain.offset), expected, rtol=1e-5, atol=1e-7):
        raise ExportError(
            f"{run.model_path}: expected pixels × {expected[0]:.6g} + {expected[1]:.6g} as run.json says, received"
            f" × {chain.scale:.6g} + {chain.offset:.6g}; train again"
        )


def _write_float32(
    exporter: Exporter, stage: bundle.Staging, model: ModelProto, golden: Golden, expected: NDArray[np.float32]
) -> Written:
    path = stage.write(FILES[FLOAT32], model.SerializeToString())
    with _stage(exporter.say, "verify float32"):
        data = path.read_bytes()
        exporter.float32_images_per_s = exporter.speeds({FLOAT32: data})[FLOAT32]
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


def _write_int8(
    exporter: Exporter, stage: bundle.Staging, float32: ModelProto, calibration: Rows, float32_path: Path
) -> list[Written]:
    with _stage(exporter.say, "quantize int8"):
        best = _fastest(exporter, float32, calibration, float32_path.read_bytes())
    if best is None:
        return []
    model, recipe = best
    path = stage.write(FILES[INT8], model)
    with _stage(exporter.say, "verify int8"):
        data = path.read_bytes()
        speeds = exporter.speeds({FLOAT32: float32_path.read_bytes(), INT8: data})
        speed = exporter.float32_images_per_s * speeds[INT8] / speeds[FLOAT32]
        attempt = exporter.measure(INT8, recipe, data, speed)
    if not attempt.reasons:
        return [Written(attempt, path)]
    exporter.say(_line(attempt))
    path.unlink()
    return []


def _fastest(
    exporter: Exporter, float32: ModelProto, calibration: Rows, float32_bytes: bytes
) -> tuple[bytes, str] | None:
    """Tries one calibration method after the other until a graph passes; of its graphs, the fastest that passes."""
    prepared = quantize.prepare(float32)
    chosen = exporter.settings.calibration
    for method in quantize.METHODS if chosen == "auto" else (chosen,):
        starts = quantize.starts(prepared, exporter.settings.first_layer)
        recipes = [quantize.Recipe(method, start) for start in starts]
        models = {
            str(recipe): quantize.quantize(prepared, calibration.pixels, recipe).SerializeToString()
            for recipe in recipes
        }
        speeds = exporter.speeds({FLOAT32: float32_bytes, **models})
        passed: dict[str, float] = {}
        for recipe, model in models.items():
            speed = exporter.float32_images_per_s * speeds[recipe] / speeds[FLOAT32]
            attempt = exporter.measure(INT8, recipe, model, speed)
            exporter.say(_line(attempt))
            if not attempt.reasons:
                passed[recipe] = speed
        if passed:
            recipe = max(passed, key=passed.__getitem__)
            return models[recipe], recipe
    return None


def _line(attempt: Attempt) -> str:
    verdict = "passes" if not attempt.reasons else "; ".join(attempt.reasons)
    return (
        f"  int8 ({attempt.recipe}): {attempt.speedup:.2f} × float32, agreement {attempt.comparison.agreement:.2%},"
        f" accuracy drop {100 * attempt.comparison.accuracy_drop:.2f} points: {verdict}"
    )


@contextmanager
def _stage(say: Say, name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    say(f"{name}: {time.perf_counter() - started:.1f} s")
