"""The int8 variant: which graph of those that can be made is written.

calibration rows ──drift?──▶ each method: both starts, measured ──▶ the fastest that passes
                                 │ all miss
                                 ▼
                         what does each layer cost? ──▶ the worst 1, 2, 4, … stay in float32 ──▶ the first that passes
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export import bundle, quantize, verify
from export.drift import measure_drift
from export.exporter import Exporter, attempt_line, stage_timer
from export.manifest import Attempt, Written
from export.quantize import Recipe
from export.run_folder import Rows
from export.settings import INT8

SENSITIVITY_ROWS: Final = 128  # enough to order the layers by; every layer is quantized once for it

Best = tuple[bytes, str]


def write_int8(exporter: Exporter, stage: bundle.Staging, float32: ModelProto, calibration: Rows) -> list[Written]:
    """Writes the int8 variant, if one passes.

    Args:
        exporter: The export.
        stage: The bundle being written.
        float32: The verified graph.
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
        best = _best(exporter, quantize.prepare(float32), calibration.pixels)
    return exporter.write(stage, INT8, *best) if best else []


def _best(exporter: Exporter, prepared: ModelProto, rows: NDArray[np.uint8]) -> Best | None:
    chosen = exporter.settings.calibration
    starts = quantize.starts(prepared, exporter.settings.first_layer)
    missed: dict[Recipe, Attempt] = {}
    for method in quantize.METHODS if chosen == "auto" else (chosen,):
        recipes = [Recipe(method, start) for start in starts]
        best = _fastest(exporter, prepared, rows, recipes, missed)
        if best:
            return best
    wrong = {recipe: one for recipe, one in missed.items() if _answers_wrongly(exporter, one)}
    if not wrong or not exporter.settings.sensitivity:
        return None
    nearest = max(wrong, key=lambda recipe: wrong[recipe].comparison.agreement)
    return _spared(exporter, prepared, rows, nearest)


def _fastest(
    exporter: Exporter,
    prepared: ModelProto,
    rows: NDArray[np.uint8],
    recipes: list[Recipe],
    missed: dict[Recipe, Attempt],
) -> Best | None:
    """Builds and measures some recipes; returns the fastest that passes and notes the others in `missed`."""
    models = {recipe: quantize.quantize(prepared, rows, recipe).SerializeToString() for recipe in recipes}
    speeds = exporter.speeds({str(recipe): model for recipe, model in models.items()})
    passed: dict[Recipe, float] = {}
    for recipe, model in models.items():
        attempt = exporter.measure(INT8, str(recipe), model, speeds[str(recipe)])
        exporter.say(attempt_line(attempt))
        if attempt.reasons:
            missed[recipe] = attempt
        else:
            passed[recipe] = attempt.images_per_s
    if not passed:
        return None
    recipe = max(passed, key=passed.__getitem__)
    return models[recipe], str(recipe)


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
        trial = Recipe(recipe.method, recipe.start, tuple(hurting[:count]))
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
        trial = Recipe(recipe.method, recipe.start, float_layers)
        model = quantize.quantize(prepared, rows, trial).SerializeToString()
        return float(np.abs(verify.answer(verify.open_session(model), rows) - reference).mean())

    whole = error(())
    gains = {layer: whole - error((layer,)) for layer in quantize.layers(prepared, recipe)}
    return dict(sorted(gains.items(), key=lambda pair: pair[1], reverse=True))
