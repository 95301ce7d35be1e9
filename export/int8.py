"""The int8 variants: which graphs of those that can be made are written.

calibration rows ──drift?──▶ each method: both starts, pixels in groups or not, measured ──▶ the fastest that passes
                                 │ all miss
                                 ▼
                         what does each layer cost? ──▶ the worst 1, 2, 4, … stay in float32 ──▶ the first that passes
                                                                     │ none
                                                                     ▼
                                                         fine-tune a copy, and all of it once more

int8 ──the same, wide layers as matrix products──▶ faster here? ──▶ int8-amx
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export import amx, bundle, convert, qat, quantize, verify
from export.drift import measure_drift
from export.exporter import Exporter, attempt_line, stage_timer
from export.manifest import Attempt, Written
from export.pixel_groups import group_pixels
from export.quantize import Recipe
from export.run_folder import Rows
from export.settings import INT8, INT8_AMX

SENSITIVITY_ROWS: Final = 128  # enough to order the layers by; every layer is quantized once for it


@dataclass(frozen=True, slots=True)
class Best:
    """The int8 graph that passed and is the fastest.

    Args:
        recipe: How it was made.
        model: Serialised.
        images_per_s: At one thread.
    """

    recipe: Recipe
    model: bytes
    images_per_s: float


def write_int8(
    exporter: Exporter, stage: bundle.Staging, keras_model: Any, float32: ModelProto, calibration: Rows
) -> list[Written]:
    """Writes the int8 variants that pass.

    Args:
        exporter: The export.
        stage: The bundle being written.
        keras_model: What is exported.
        float32: Its verified graph.
        calibration: Rows to find ranges with.
    """
    exporter.drift = drift = measure_drift(calibration.pixels, exporter.holdout.pixels)
    limit = exporter.gates.max_calibration_drift
    if drift.psi > limit:
        reason = (
            f"calibration drift: expected a stability index of at most {limit:.6g}, received {drift.psi:.6g};"
            " calibrate with rows that look like those to be classified"
        )
        exporter.say(f"  int8: {reason}")
        exporter.refusals[INT8] = [reason]
        return []
    with stage_timer(exporter.say, "quantize int8"):
        prepared = quantize.prepare(float32)
        best = _best(exporter, prepared, calibration.pixels)
    if best is None and exporter.settings.qat_epochs and _some_answered_wrongly(exporter):
        with stage_timer(exporter.say, "fine-tune int8"):
            prepared = _fine_tuned(exporter, keras_model, float32, calibration.pixels)
            best = _best(exporter, prepared, calibration.pixels, exporter.settings.qat_epochs)
    written = exporter.write(stage, INT8, best.model, str(best.recipe), best.images_per_s) if best else []
    if best and written and INT8_AMX in exporter.settings.variants:
        written += _write_amx(exporter, stage, prepared, calibration.pixels, best)
    return written


def _write_amx(
    exporter: Exporter, stage: bundle.Staging, prepared: ModelProto, rows: NDArray[np.uint8], best: Best
) -> list[Written]:
    if not amx.wide_weights(prepared, quantize.layers(prepared, best.recipe)):
        return []
    recipe = replace(best.recipe, products=True)
    with stage_timer(exporter.say, "quantize int8-amx"):
        model = quantize.quantize(prepared, rows, recipe).SerializeToString()
        speeds = exporter.speeds({INT8: best.model, INT8_AMX: model})
    reasons = verify.gain_misses(speeds[INT8_AMX] / speeds[INT8], exporter.gates)
    if reasons:
        exporter.refusals[INT8_AMX] = reasons
        return []
    return exporter.write(stage, INT8_AMX, model, str(recipe), speeds[INT8_AMX])


def _some_answered_wrongly(exporter: Exporter) -> bool:
    return any(_answers_wrongly(exporter, one) for one in exporter.attempts if one.variant == INT8)


def _fine_tuned(exporter: Exporter, keras_model: Any, float32: ModelProto, rows: NDArray[np.uint8]) -> ModelProto:
    settings = exporter.settings
    exporter.say(f"  int8: fine-tuning for {settings.qat_epochs} epochs of {len(rows):,} rows")
    tuned = qat.fine_tune(keras_model, rows, epochs=settings.qat_epochs, learning_rate=settings.qat_learning_rate)
    properties = {entry.key: entry.value for entry in float32.metadata_props}
    return quantize.prepare(convert.to_onnx(tuned, opset=settings.opset, properties=properties))


def _best(exporter: Exporter, prepared: ModelProto, rows: NDArray[np.uint8], tuned_epochs: int = 0) -> Best | None:
    chosen = exporter.settings.calibration
    starts = quantize.starts(prepared, exporter.settings.first_layer)
    missed: dict[Recipe, Attempt] = {}
    for method in quantize.METHODS if chosen == "auto" else (chosen,):
        recipes = [Recipe(method, start, tuned_epochs=tuned_epochs) for start in starts]
        best = _fastest(exporter, prepared, rows, recipes, missed)
        if best:
            return best
    wrong = {recipe: one for recipe, one in missed.items() if _answers_wrongly(exporter, one)}
    if not wrong or not exporter.settings.sensitivity:
        return None
    nearest = max(wrong, key=lambda recipe: wrong[recipe].comparison.agreement)
    return _spared(exporter, prepared, rows, replace(nearest, grouped=False))


def _fastest(
    exporter: Exporter,
    prepared: ModelProto,
    rows: NDArray[np.uint8],
    recipes: list[Recipe],
    missed: dict[Recipe, Attempt],
) -> Best | None:
    """Builds and measures some recipes; returns the fastest that passes and notes the others in `missed`."""
    models = _in_both_ways(exporter, prepared, rows, recipes)
    speeds = exporter.speeds({str(recipe): model for recipe, model in models.items()})
    passed: dict[Recipe, float] = {}
    for recipe in _faster_ways(models, speeds):
        attempt = exporter.measure(INT8, str(recipe), models[recipe], speeds[str(recipe)])
        exporter.say(attempt_line(attempt))
        if attempt.reasons:
            missed[recipe] = attempt
        else:
            passed[recipe] = attempt.images_per_s
    if not passed:
        return None
    recipe = max(passed, key=passed.__getitem__)
    return Best(recipe, models[recipe], passed[recipe])


def _in_both_ways(
    exporter: Exporter, prepared: ModelProto, rows: NDArray[np.uint8], recipes: list[Recipe]
) -> dict[Recipe, bytes]:
    """Builds recipes, each plain and with its pixels in groups, unless one of the ways is asked for."""
    models: dict[Recipe, bytes] = {}
    for recipe in recipes:
        plain = quantize.quantize(prepared, rows, recipe)
        grouped = group_pixels(plain) if exporter.settings.pixel_groups != "off" else None
        if grouped is not None:
            models[replace(recipe, grouped=True)] = grouped.SerializeToString()
        if grouped is None or exporter.settings.pixel_groups == "auto":
            models[recipe] = plain.SerializeToString()
    return models


def _faster_ways(models: dict[Recipe, bytes], speeds: dict[str, float]) -> list[Recipe]:
    """Of each recipe the faster way: both give the same answers, so it is enough to verify one."""
    slowest_first = sorted(models, key=lambda recipe: speeds[str(recipe)])
    return list({replace(recipe, grouped=False): recipe for recipe in slowest_first}.values())


def _answers_wrongly(exporter: Exporter, attempt: Attempt) -> bool:
    # More layers in float32 make it neither faster nor smaller, so a miss of those gates is final.
    return bool(verify.answer_misses(INT8, attempt.comparison, exporter.gates))


def _spared(exporter: Exporter, prepared: ModelProto, rows: NDArray[np.uint8], recipe: Recipe) -> Best | None:
    exporter.say(f"  int8: looking for the layers that hurt ({recipe})")
    gains = sensitivity(prepared, rows[:SENSITIVITY_ROWS], recipe)
    exporter.sensitivity = gains
    hurting = [layer for layer, gain in gains.items() if gain > 0]
    count = 1
    while count <= len(hurting) and count < len(gains):
        trial = replace(recipe, float_layers=tuple(hurting[:count]))
        best = _fastest(exporter, prepared, rows, [trial], {})
        if best:
            return best
        count *= 2
    return None


def sensitivity(prepared: ModelProto, rows: NDArray[np.uint8], recipe: Recipe) -> dict[str, float]:
    """Measures what each layer costs: how much nearer to float32 the answers are with that layer left in float32.

    Args:
        prepared: From `quantize.prepare`.
        rows: `uint8[n, h, w, c]` of the calibration rows: neither labels nor hold-out rows are looked at.
        recipe: The one that missed.

    Returns:
        Layer → mean absolute difference of a probability that it is to blame for, the worst first.
    """
    reference = verify.answer(verify.open_session(prepared.SerializeToString()), rows)

    def error(float_layers: tuple[str, ...]) -> float:
        trial = replace(recipe, float_layers=float_layers)
        model = quantize.quantize(prepared, rows, trial).SerializeToString()
        return float(np.abs(verify.answer(verify.open_session(model), rows) - reference).mean())

    whole = error(())
    gains = {layer: whole - error((layer,)) for layer in quantize.layers(prepared, recipe)}
    return dict(sorted(gains.items(), key=lambda pair: pair[1], reverse=True))
