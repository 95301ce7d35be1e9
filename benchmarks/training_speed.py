"""`python -m benchmarks training-speed`: our training against a plain `model.fit` on NumPy arrays, side by side.

    plain   float32 arrays ──model.fit──▶ the architecture as it is saved, in float32, no augmentation
    ours    uint8 rows ──pipeline, augmentation──▶ fused layers, the precision that `auto` chooses

Same architecture, optimizer, batch size and rows; the two take turns, so that whatever else the machine does hits both.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.resilience import Verdict, add_common_arguments, finish

RATIO_AT_LEAST = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--architectures", default="cnn,fast", help="of training, separated by commas (cnn,fast)")
    parser.add_argument(
        "--rows",
        type=int,
        default=6144,
        help="rows of an epoch, 32x32 in colour; of few, what an epoch costs to begin is a good part (default: 6144)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each, taking turns (default: 3)")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures every architecture; see the module."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    verdict = Verdict()
    for name in arguments.architectures.split(","):
        figures = measured(name, arguments.rows, arguments.rounds)
        verdict.figures[name] = figures
        verdict.require(
            f"{name}: images/s of ours / of plain model.fit", figures["ratio"], RATIO_AT_LEAST, at_least=True
        )
    return finish(arguments, verdict)


def measured(name: str, rows: int, rounds: int) -> dict[str, Any]:
    """Trains one architecture both ways.

    Args:
        name: Of the registry.
        rows: Of an epoch.
        rounds: Epochs of each, after one that compiles.

    Returns:
        Images per second of both, their ratio, and what was trained.
    """
    plan = _plan(name, rows)
    plain, ours = _plain(plan), _ours(plan)
    plain(), ours()
    seconds = [(_timed(plain), _timed(ours)) for _ in range(rounds)]
    return {
        "plain_images_per_s": round(rows / statistics.median(pair[0] for pair in seconds), 1),
        "our_images_per_s": round(rows / statistics.median(pair[1] for pair in seconds), 1),
        "ratio": round(statistics.median(pair[0] / pair[1] for pair in seconds), 3),
        "ratios": [round(pair[0] / pair[1], 3) for pair in seconds],
        "precision": plan.recipe.precision,
        "batch_size": plan.recipe.batch_size,
        "augment": plan.recipe.augment,
        "rows": rows,
    }


def _plan(name: str, rows: int) -> Any:
    from server.images import ImageSpec  # noqa: PLC0415 (TensorFlow takes seconds)
    from training import plan  # noqa: PLC0415
    from training.data.loading import Dataset, Split  # noqa: PLC0415
    from training.settings import TrainSettings  # noqa: PLC0415

    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, rows), ())
    labels = tuple("abcdefghij")
    data = Dataset("random", labels, ImageSpec(32, 32, 3), "none", split, split, split)
    return plan.make(TrainSettings(model=name, runs=Path()), data)


def _plain(plan: Any) -> Callable[[], None]:
    split = plan.data.train
    pixels, labels = split.rows.astype(np.float32), np.eye(10, dtype=np.float32)[split.labels]
    model = _compiled(plan, plan.build())
    return lambda: model.fit(pixels, labels, batch_size=plan.recipe.batch_size, verbose=0)


def _ours(plan: Any) -> Callable[[], None]:
    from training.pipeline import Feed  # noqa: PLC0415 (TensorFlow takes seconds)

    recipe = plan.recipe
    feed = Feed(plan.data.train, 10, batch_size=recipe.batch_size, augmentation=recipe.augmentation)
    model = _compiled(plan, plan.build_for_training())
    return lambda: model.fit(feed.batches(0, feed.steps), steps_per_epoch=feed.steps, shuffle=False, verbose=0)


def _compiled(plan: Any, model: Any) -> Any:
    from training import optimizers  # noqa: PLC0415 (TensorFlow takes seconds)

    model.compile(optimizers.make(plan.recipe, 1000), loss="categorical_crossentropy", metrics=["accuracy"])
    optimizers.build_for(model.optimizer, model)
    return model


def _timed(work: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
