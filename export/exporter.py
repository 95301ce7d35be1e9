"""The state of one export, and the one way in which a graph is measured.

graph ──speeds──▶ images/s ─┐
      └──answers on every hold-out row──▶ Comparison ──gates──▶ Attempt, with the reasons against it
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from export import bundle, verify
from export.drift import Drift
from export.graph import operators
from export.manifest import Attempt, Written
from export.run_folder import Rows, Run
from export.settings import FLOAT16, FLOAT32, INT8, INT8_AMX, ExportSettings, Gates
from export.verify import Comparison

Say = Callable[[str], None]
FILES: Final = {
    FLOAT32: "model.onnx",
    INT8: "model.int8.onnx",
    INT8_AMX: "model.int8-amx.onnx",
    FLOAT16: "model.float16.onnx",
}


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
        refusals: Variant → why none was even tried.
        drift: Of the calibration rows; None while int8 was not tried.
        sensitivity: What each layer costs in int8; empty where nobody had to know.
        float32_images_per_s: One thread.
        float32_bytes: The reference's file.
    """

    run: Run
    settings: ExportSettings
    gates: Gates
    say: Say
    holdout: Rows
    reference: NDArray[np.float32]
    attempts: list[Attempt] = field(default_factory=list)
    refusals: dict[str, list[str]] = field(default_factory=dict)
    drift: Drift | None = None
    sensitivity: dict[str, float] = field(default_factory=dict)
    float32_images_per_s: float = 0.0
    float32_bytes: bytes = b""
    _compared: dict[str, Comparison] = field(default_factory=dict)

    def measure(self, variant: str, recipe: str, model: bytes, speed: float) -> Attempt:
        """Compares one graph with Keras on every hold-out row, and gates it.

        Args:
            variant: Its name.
            recipe: How it was made.
            model: Serialised.
            speed: Its images/s.
        """
        comparison = self._compare(model)
        speedup = speed / self.float32_images_per_s
        ratio = len(model) / len(self.float32_bytes or model)
        reasons = tuple(verify.gate(variant, comparison, speedup, self.gates, size_ratio=ratio))
        kinds = operators(onnx.load_from_string(model))
        attempt = Attempt(variant, recipe, comparison, speed, speedup, len(model), kinds, reasons)
        self.attempts.append(attempt)
        return attempt

    def _compare(self, model: bytes) -> Comparison:
        # The chosen graph comes back from disk as the same bytes, and the same bytes answer the same.
        digest = hashlib.sha256(model).hexdigest()
        if digest not in self._compared:
            answers = verify.answer(verify.open_session(model), self.holdout.pixels)
            self._compared[digest] = verify.compare(answers, self.reference, self.holdout.labels)
        return self._compared[digest]

    def speeds(self, models: dict[str, bytes]) -> dict[str, float]:
        """Measures images/s of several graphs side by side with float32.

        Args:
            models: Serialised, by name.

        Returns:
            Images/s, all scaled to the figure that float32 has in this export.
        """
        sessions = {name: verify.open_session(model) for name, model in {FLOAT32: self.float32_bytes, **models}.items()}
        measured = verify.images_per_s(sessions, self.holdout.pixels)
        factor = self.float32_images_per_s / measured[FLOAT32] if self.float32_images_per_s else 1.0
        return {name: speed * factor for name, speed in measured.items()}

    def write(
        self, stage: bundle.Staging, variant: str, model: bytes, recipe: str, speed: float | None = None
    ) -> list[Written]:
        """Writes a variant, reads it back, and takes it away again if what was read misses a gate.

        Args:
            stage: The bundle being written.
            variant: Its name.
            model: Serialised.
            recipe: How it was made.
            speed: Its images/s; None to measure it.

        Returns:
            The variant, or nothing.
        """
        path = stage.write(FILES[variant], model)
        with stage_timer(self.say, f"verify {variant}"):
            data = path.read_bytes()
            attempt = self.measure(variant, recipe, data, speed or self.speeds({variant: data})[variant])
        if not attempt.reasons:
            return [Written(attempt, path)]
        self.say(attempt_line(attempt))
        path.unlink()
        return []


def attempt_line(attempt: Attempt) -> str:
    """Tells what came of an attempt.

    Args:
        attempt: Any but float32's.
    """
    verdict = "passes" if not attempt.reasons else "; ".join(attempt.reasons)
    return (
        f"  {attempt.variant} ({attempt.recipe}): {attempt.speedup:.2f} × float32,"
        f" agreement {attempt.comparison.agreement:.2%},"
        f" accuracy drop {100 * attempt.comparison.accuracy_drop:.2f} points: {verdict}"
    )


@contextmanager
def stage_timer(say: Say, name: str) -> Iterator[None]:
    """Says how long what happens inside took.

    Args:
        say: Takes the line.
        name: Of the stage.
    """
    started_s = time.perf_counter()
    yield
    say(f"{name}: {time.perf_counter() - started_s:.1f} s")
