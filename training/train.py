"""One training, from settings to a run folder: settings → data → model → loop → evaluation → record."""

import csv
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from server import images
from training import devices, loop, pipeline, plan, provenance, runs, tracking
from training.data.loading import Dataset, Split
from training.data.splits import stratified_order
from training.errors import TrainingError
from training.evaluate import calibrated, draw, measured_on_test
from training.loop import Epoch, Fitted
from training.plan import Plan
from training.prediction import predict
from training.settings import TrainSettings

CALIBRATION_ROWS: Final = 1_000
HOLDOUT_ROWS: Final = 10_000
SAMPLE_FILES: Final = 32


def train(settings: TrainSettings, data: Dataset, *, on_epoch: Callable[[Epoch], None] | None = None) -> runs.Run:
    """Trains a model and writes its run folder, or finishes the one that an earlier process left unfinished.

    Args:
        settings: The user's.
        data: What `training.data.loading.load` made of them; many trainings may share it.
        on_epoch: Told of every epoch; what it raises ends the training.

    Returns:
        The finished run.

    Raises:
        TrainingError: The settings are not usable, the loss diverged, a batch does not fit into memory, or the disk is
            full. No finished run is touched.
    """
    began_s = time.perf_counter()
    tracking.check(settings.mlflow)
    _seed(settings)
    scope = devices.scope(settings.devices)
    made = plan.make(settings, data)
    with runs.draft(settings.runs, settings.run_name, key=made.key, fresh=settings.fresh) as folder:
        fitted = _fitted(made, folder, scope, on_epoch)
        try:
            record = _written(made, fitted, folder, began_s)
            run = runs.publish(folder, record)
        except OSError as error:
            raise TrainingError(
                f"cannot write the run folder in {folder.parent} ({error.strerror or error}); make room and run this"
                " command again, or choose another folder by --runs"
            ) from error
    if settings.mlflow:
        tracking.log(settings.mlflow, run, record["settings"], list(fitted.history))
    return run


def _seed(settings: TrainSettings) -> None:
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 (this backend's)

        tf.config.experimental.enable_op_determinism()


def _fitted(
    made: Plan, folder: Path, scope: AbstractContextManager[Any] | None, on_epoch: Callable[[Epoch], None] | None
) -> Fitted:
    settings, recipe, data = made.settings, made.recipe, made.data
    feed = pipeline.Feed(
        data.train,
        len(data.labels),
        batch_size=recipe.batch_size,
        augmentation=recipe.augmentation,
        label_smoothing=recipe.label_smoothing,
        seed=settings.seed,
        is_timed=scope is None and not settings.deterministic,
    )
    places = loop.Places(
        checkpoints=folder / runs.CHECKPOINT if settings.checkpoints else None,
        tensorboard=folder / "tensorboard",
        checkpoint_minutes=settings.checkpoint_minutes,
    )
    return loop.fit(
        made.build_for_training,
        feed,
        pipeline.plain_batches(data.validation, len(data.labels), batch_size=recipe.batch_size),
        recipe,
        places,
        scope=scope,
        callbacks=made.architecture.callbacks(made.model_settings),
        on_epoch=on_epoch,
    )


def _written(made: Plan, fitted: Fitted, folder: Path, began_s: float) -> dict[str, Any]:
    """Measures the model and writes every file of the run but its record, which is returned."""
    settings, data = made.settings, made.data
    model = made.build()  # in float32 and of Keras's own layers, so what is saved depends on nothing of ours
    model.set_weights(list(fitted.weights))
    holdout = _chosen(data.test, HOLDOUT_ROWS, settings.seed)
    measured = _evaluated(model, data, holdout)
    model.save(folder / "model.keras")
    _write_history(folder / "history.csv", fitted.history)
    runs.write_json(folder / runs.METRICS, measured)
    _write_arrays(folder, data, holdout, settings.seed)
    record = _record(made, model, fitted, duration_s=time.perf_counter() - began_s)
    draw(folder, {"name": settings.run_name, **record}, measured)
    return record


def _evaluated(model: Any, data: Dataset, holdout: NDArray[np.int64]) -> dict[str, Any]:
    """Calibrates the model on the validation split, then measures what will be saved on the test split."""
    first = calibrated(model, data.validation.rows, data.validation.labels)
    return first | measured_on_test(predict(model, data.test.rows), data.test.labels, data.labels, holdout)


def _write_history(file: Path, history: Sequence[Epoch]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [column.name for column in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(line) for line in history)


def _write_arrays(folder: Path, data: Dataset, holdout: NDArray[np.int64], seed: int) -> None:
    """Writes what export needs, so that it needs neither the data set nor this code."""
    calibration = _chosen(data.train, CALIBRATION_ROWS, seed)
    np.savez_compressed(
        folder / "calibration.npz", rows=data.train.rows[calibration], labels=data.train.labels[calibration]
    )
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


def _record(made: Plan, model: Any, fitted: Fitted, *, duration_s: float) -> dict[str, Any]:
    settings, recipe, data = made.settings, made.recipe, made.data
    return {
        "key": made.key,
        "model": settings.model,
        "model_settings": asdict(made.model_settings),
        "image": asdict(data.image),
        "labels": list(data.labels),
        "seed": settings.seed,
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "augment": recipe.augment,
        "precision": recipe.precision,
        "settings": {**asdict(recipe), "deterministic": settings.deterministic, "devices": settings.devices},
        "git_revision": provenance.git_revision(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "duration_s": round(duration_s, 3),
        "timing": _timing(fitted),
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
            **data.record,
        },
        "tools": provenance.tools(),
    }


def _timing(fitted: Fitted) -> dict[str, Any]:
    """Sums the history up: the first epoch counts only where there is no other, since the model is compiled in it."""
    epochs = fitted.history[1:] or fitted.history
    input_share = fmean(line.input_share for line in epochs)
    return {
        "training_s": round(sum(line.duration_s for line in fitted.history), 3),
        "images_per_s": median(line.images_per_s for line in epochs),
        "input_share": None if math.isnan(input_share) else round(input_share, 4),
        "resumed_at_step": fitted.resumed_at,
    }
