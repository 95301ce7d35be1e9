"""One training, from settings to a run folder: settings → data → model → loop → evaluation → record."""

import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from server import images
from training import console, loop, metrics, models, pipeline, provenance, runs
from training.data.loading import Dataset, Split
from training.data.splits import stratified_order
from training.evaluate import draw, predict
from training.loop import Epoch
from training.models import Architecture
from training.settings import TrainSettings, parse_model_settings

CALIBRATION_ROWS: Final = 1_000
HOLDOUT_ROWS: Final = 10_000
SAMPLE_FILES: Final = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before the first step.

    Args:
        settings: The user's.
        architecture: Of the registry.
        model_settings: The architecture's own.
        data: In memory.
        augment: "none", "crop" or "flip-crop".
        precision: "float32" or "bfloat16".
    """

    settings: TrainSettings
    architecture: Architecture
    model_settings: Any
    data: Dataset
    augment: str
    precision: str

    def build(self, precision: str) -> Any:
        """Builds the model with fresh weights, computing in a precision; the weights are float32 in either."""
        with _dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32"):
            return self.architecture.build(self.model_settings, self.data.image, len(self.data.labels))


def train(settings: TrainSettings, data: Dataset) -> runs.Run:
    """Trains a model and writes its run folder.

    Args:
        settings: The user's.
        data: What `training.data.loading.load` made of them; many trainings may share it.

    Returns:
        The finished run.

    Raises:
        TrainingError: The model's settings are not usable, or the loss diverged. No run folder is left behind.
    """
    began_s = time.perf_counter()
    _seed(settings)
    plan = _plan(settings, data)
    with runs.draft(settings.runs, settings.run_name) as folder:
        model, history = _trained(plan, folder)
        measured = _evaluated(model, plan.data)
        model.save(folder / "model.keras")
        _write_history(folder / "history.csv", history)
        runs.write_json(folder / runs.METRICS, measured)
        draw(folder, measured, plan.data.labels)
        _write_arrays(folder, plan.data, settings.seed)
        record = _record(plan, model, epochs=len(history), duration_s=time.perf_counter() - began_s)
        return runs.publish(folder, record)


def _plan(settings: TrainSettings, data: Dataset) -> Plan:
    architecture = models.get(settings.model)
    model_settings = parse_model_settings(architecture.settings, settings.set)
    automatic = "none" if data.image.channels == 1 else "flip-crop"
    plan = Plan(
        settings=settings,
        architecture=architecture,
        model_settings=model_settings,
        data=data,
        augment=automatic if settings.augment == "auto" else settings.augment,
        precision=architecture.precision if settings.mixed_precision == "auto" else settings.mixed_precision,
    )
    _announce(plan)
    return plan


def _announce(plan: Plan) -> None:
    data, image = plan.data, plan.data.image
    console.say(
        f"data   {data.source}: {len(data.train.labels):,} to train, {len(data.validation.labels):,} to validate,"
        f" {len(data.test.labels):,} to test; {len(data.labels)} classes; {image.height_px}x{image.width_px}x"
        f"{image.channels} pixels"
    )
    console.say(f"model  {plan.settings.model}, {plan.precision}, augmentation {plan.augment}")
    note = plan.architecture.note(plan.model_settings, image)
    if note:
        console.say(f"note: {note}")


def _seed(settings: TrainSettings) -> None:
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()


def _trained(plan: Plan, folder: Path) -> tuple[Any, list[Epoch]]:
    """Fits a model; returns the best epoch's weights in a float32 model, so what is saved depends on no precision."""
    settings, data = plan.settings, plan.data
    checkpoint = folder / "best.weights.h5"
    batches = pipeline.training_batches(
        data.train, batch_size=settings.batch_size, augment=plan.augment, seed=settings.seed
    )
    history = loop.fit(
        plan.build(plan.precision),
        batches,
        pipeline.plain_batches(data.validation, batch_size=settings.batch_size),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        patience=settings.patience,
        checkpoint=checkpoint,
        tensorboard=folder / "tensorboard",
    )
    model = plan.build("float32")
    model.load_weights(checkpoint)
    checkpoint.unlink()  # model.keras holds the same weights
    return model, history


def _evaluated(model: Any, data: Dataset) -> dict[str, Any]:
    validation = metrics.summary(predict(model, data.validation.rows), data.validation.labels)
    test = metrics.report(predict(model, data.test.rows), data.test.labels, data.labels)
    return {"validation": validation, "test": test}


def _write_history(file: Path, history: Sequence[Epoch]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [column.name for column in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(line) for line in history)


def _write_arrays(folder: Path, data: Dataset, seed: int) -> None:
    """Writes what export needs, so that it needs neither the data set nor this code."""
    calibration = _chosen(data.train, CALIBRATION_ROWS, seed)
    np.savez_compressed(
        folder / "calibration.npz", rows=data.train.rows[calibration], labels=data.train.labels[calibration]
    )
    holdout = _chosen(data.test, HOLDOUT_ROWS, seed)
    np.savez_compressed(folder / "holdout.npz", rows=data.test.rows[holdout], labels=data.test.labels[holdout])
    samples = _chosen(data.test, SAMPLE_FILES, seed)
    files = [data.test.items[index].read() for index in samples.tolist()]
    np.savez(
        folder / "samples.npz",
        encoded=np.frombuffer(b"".join(files), dtype=np.uint8),
        offsets=np.cumsum([0, *(len(file) for file in files)], dtype=np.int64),
        labels=data.test.labels[samples],
    )


def _chosen(split: Split, count: int, seed: int) -> NDArray[np.int64]:
    return np.sort(stratified_order(split.labels, seed)[:count])


def _record(plan: Plan, model: Any, *, epochs: int, duration_s: float) -> dict[str, Any]:
    settings, data = plan.settings, plan.data
    return {
        "model": settings.model,
        "model_settings": asdict(plan.model_settings),
        "image": asdict(data.image),
        "labels": list(data.labels),
        "seed": settings.seed,
        "epochs": epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "augment": plan.augment,
        "precision": plan.precision,
        "git_revision": provenance.git_revision(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "duration_s": round(duration_s, 3),
        "parameters": model.count_params(),
        "framework": provenance.framework(),
        "preprocessing": {"scale": 1 / 255, "offset": 0.0, "resize": images.RESIZE},
        "data": {
            "source": data.source,
            "fingerprint": data.fingerprint,
            "rows": {
                "train": len(data.train.labels),
                "validation": len(data.validation.labels),
                "test": len(data.test.labels),
            },
            "validation_fraction": settings.validation_fraction,
            "fraction": settings.fraction,
        },
        "tools": provenance.tools(),
    }


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
