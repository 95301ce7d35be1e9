"""The training loop: optimizer, schedule, averaging, stopping, whose weights are kept, where to go on.

model, batches ──fit──▶ epoch ──▶ history, TensorBoard, progress
                          ├─ best so far by validation accuracy, then loss ──▶ weights
                          └─ everything that the next epoch depends on ──▶ checkpoint
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras

from training import console, exhausted, optimizers, schedules
from training.checkpoints import Arrays, Progress, Store
from training.errors import Diverged, TrainingError
from training.pipeline import Feed
from training.recipe import Recipe

_CHECKED_STEPS: Final = 100  # between looks at the loss within an epoch: reading it waits for the device
_MEANS: Final = ("loss", "accuracy")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history.

    Args:
        epoch: From 1.
        loss: Mean over the training batches, dropout, augmentation and smoothed labels included, in nats.
        accuracy: Likewise, 0..1.
        val_loss: On the validation split after the epoch, of the averaged weights if there are any.
        val_accuracy: Likewise, 0..1.
        learning_rate: Of its last step.
        duration_s: Wall time, validation included.
        images_per_s: Training rows per second, validation not included.
        input_share: Share of the steps' time that the model waited for batches, 0..1; no number if it was not measured.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    duration_s: float
    images_per_s: float
    input_share: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training leaves.

    Args:
        weights: Those to keep, in the order of `model.weights`.
        history: An entry per epoch.
        best_epoch: Whose weights they are, from 1.
        resumed_at: The step at which this process took over; 0: it began.
    """

    weights: Arrays
    history: Sequence[Epoch]
    best_epoch: int
    resumed_at: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where a training writes.

    Args:
        checkpoints: Folder, or None: write none.
        tensorboard: Folder for TensorBoard's logs.
        checkpoint_minutes: Within an epoch, a checkpoint after so many minutes.
    """

    checkpoints: Path | None
    tensorboard: Path
    checkpoint_minutes: float = 10.0


class Recorder(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Writes every epoch down, keeps weights, and says when to stop.

    Args:
        recipe: Of the training.
        feed: Its batches.
        places: Where checkpoints go.
        advance: Told of every step.
        on_epoch: Told of every epoch.
    """

    def __init__(
        self, recipe: Recipe, feed: Feed, places: Places, on_epoch: Callable[[Epoch], None] | None = None
    ) -> None:
        super().__init__()
        self.progress = Progress()
        self.advance: Callable[[int], None] | None = None
        self.best: Arrays = ()
        self._recipe = recipe
        self._feed = feed
        self._store = Store(places.checkpoints) if places.checkpoints else None
        self._interval_s = places.checkpoint_minutes * 60
        self._on_epoch = on_epoch
        # Validation swaps the average in and out again, and so does whoever takes the weights.
        self.average = keras.callbacks.SwapEMAWeights() if recipe.ema else None
        self._saved_s = time.perf_counter()
        self._before: dict[str, float] = {}
        self._began_s = self._trained_s = self._waited_s = 0.0
        self._first_step = 0

    @property
    def history(self) -> list[Epoch]:
        """The epochs so far."""
        return [Epoch(**line) for line in self.progress.history]

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing more to train."""
        losses = [line["val_loss"] for line in self.progress.history]
        return len(losses) >= self._recipe.epochs or schedules.is_hopeless(self._recipe.patience, losses)

    def restore(self) -> None:
        """Goes on from the checkpoint, if there is one."""
        if self._store is None:
            return
        self.progress, self.best = self._store.restore(self.model)
        self._before = self.progress.begun
        if self.progress.step:
            epoch, steps = divmod(self.progress.step, self._feed.steps)
            within = f" and {steps} of {self._feed.steps} steps" if steps else ""
            console.say(
                f"continuing an unfinished run of these settings after epoch {epoch} of {self._recipe.epochs}{within}"
                " (start over by --fresh)"
            )

    def kept(self) -> Arrays:
        """Returns the weights to keep: the best epoch's, or the last; averaged if they are."""
        return self.best if self._recipe.keep == "best" else self._weights()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's signature)
        """Starts the clock of an epoch."""
        self._began_s = self._trained_s = time.perf_counter()
        self._waited_s = self._feed.waited_s
        self._first_step = self.progress.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras's signature)
        """Counts a step; looks at the loss and writes a checkpoint now and then.

        Raises:
            Diverged: The loss is no number any more.
        """
        if self.advance:
            self.advance(1)
        self.progress.step += 1
        now_s = self._trained_s = time.perf_counter()
        if self.progress.step % _CHECKED_STEPS == 0:
            self._refuse_divergence(float(logs["loss"]))
        # Elsewhere than in TensorFlow the model's variables are only set at the end of an epoch.
        is_due = self._store and now_s - self._saved_s > self._interval_s and keras.backend.backend() == "tensorflow"
        if is_due and self.progress.step % self._feed.steps:
            self.progress.begun = self._means(logs, self._rows())
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes an epoch's figures, keeps its weights if they are the best, and writes a checkpoint.

        Raises:
            Diverged: The loss is no number any more.
            TrainingError: The checkpoint cannot be written.
        """
        line = self._line(epoch, logs)
        self._refuse_divergence(line.loss + line.val_loss)
        self.progress.history.append(asdict(line))
        self.progress.begun = self._before = {}
        is_best = self._keep(line)
        self.model.stop_training = self.is_finished
        if self._recipe.schedule == "plateau":
            losses = [line["val_loss"] for line in self.progress.history]
            self.model.optimizer.learning_rate = schedules.plateau(self._recipe.learning_rate, losses)
        if self._store:
            self._save()
        console.say(_told(line, self._recipe.epochs, is_best=is_best))
        if self._on_epoch:
            self._on_epoch(line)

    def _line(self, epoch: int, logs: Any) -> Epoch:
        now_s = time.perf_counter()
        rows, training_s = self._rows(), max(self._trained_s - self._began_s, 1e-9)
        return Epoch(
            epoch=epoch + 1,
            **{name: value for name, value in self._means(logs, rows).items() if name != "rows"},
            val_loss=float(logs["val_loss"]),
            val_accuracy=float(logs["val_accuracy"]),
            learning_rate=float(self.model.optimizer.learning_rate),
            duration_s=round(now_s - self._began_s, 3),
            images_per_s=round(rows / training_s, 1),
            input_share=round((self._feed.waited_s - self._waited_s) / training_s, 4),
        )

    def _rows(self) -> int:
        """Counts the rows since the epoch began in this process."""
        return self._feed.rows_between(self._first_step, self.progress.step)

    def _means(self, logs: Any, rows: int) -> dict[str, float]:
        """Joins the means of a part of an epoch that an earlier process trained with those of the rest."""
        before = self._before
        rows_before = before.get("rows", 0)
        joined = {
            name: (before.get(name, 0.0) * rows_before + float(logs[name]) * rows) / (rows_before + rows)
            for name in _MEANS
        }
        return {**joined, "rows": rows_before + rows}

    def _refuse_divergence(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        epoch = min((self.progress.step - 1) // self._feed.steps, len(self.progress.history)) + 1
        raise Diverged(
            f"expected a finite loss, received {loss} in epoch {epoch}; lower --learning-rate (it was"
            f" {self._recipe.learning_rate:g})"
        )

    def _keep(self, line: Epoch) -> bool:
        best = self.progress.history[self.progress.best_epoch - 1] if self.progress.best_epoch else None
        is_best = best is None or _score(asdict(line)) > _score(best)
        if is_best:
            self.progress.best_epoch = line.epoch
        if is_best and self._recipe.keep == "best":
            self.best = self._weights()
            if self._store:
                self._store.save_best(line.epoch, self.best)
        return is_best

    def _save(self) -> None:
        assert self._store is not None
        self._store.save(self.model, self.progress, best=self._recipe.keep == "best")
        self._saved_s = time.perf_counter()

    def _weights(self) -> Arrays:
        if self.average:
            self.average.set_model(self.model)
            self.average.on_test_begin()
        weights: Arrays = self.model.get_weights()
        if self.average:
            self.average.on_test_end()
        return weights


def fit(
    build: Callable[[], Any],
    feed: Feed,
    validation: Any,
    recipe: Recipe,
    places: Places,
    *,
    scope: AbstractContextManager[Any] | None = None,
    callbacks: Sequence[Any] = (),
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Trains a model as a recipe says, from the beginning or from where a checkpoint left it.

    Args:
        build: Makes the model, uncompiled.
        feed: The training batches.
        validation: A `tf.data.Dataset` of validation batches.
        recipe: How.
        places: Where to write.
        scope: Of a `tf.distribute` strategy, if several devices share the work.
        callbacks: Of the architecture's own.
        on_epoch: Told of every epoch; what it raises ends the training.

    Raises:
        Diverged: The loss became infinite or no number.
        TrainingError: A batch does not fit into memory, the disk is full, or a checkpoint cannot be read or written.
    """
    total = recipe.epochs * feed.steps
    recorder = Recorder(recipe, feed, places, on_epoch)
    with scope or nullcontext():
        model = build()
        model.compile(optimizers.make(recipe, total), loss="categorical_crossentropy", metrics=["accuracy"])
        optimizers.build_for(model.optimizer, model)
        recorder.set_model(model)
        recorder.restore()
    resumed_at = recorder.progress.step
    before = [recorder.average] if recorder.average else []
    board = keras.callbacks.TensorBoard(places.tensorboard, write_graph=False)
    try:
        with console.progress("training", total) as advance:
            recorder.advance = advance
            advance(resumed_at)
            _run(model, feed, validation, recorder, recipe, [*before, *callbacks, recorder, board])
    except Exception as error:
        if exhausted.is_disk(error):
            raise TrainingError(_full(places)) from error
        if exhausted.is_memory(error):
            raise TrainingError(_too_large(recipe.batch_size)) from error
        raise
    best_epoch = recorder.progress.best_epoch if recipe.keep == "best" else len(recorder.history)
    return Fitted(recorder.kept(), recorder.history, best_epoch, resumed_at)


def _run(model: Any, feed: Feed, validation: Any, recorder: Recorder, recipe: Recipe, callbacks: list[Any]) -> None:
    """Runs the rest of a begun epoch, if any, and then all others, which share one stream of batches."""
    while not recorder.is_finished:
        first = recorder.progress.step
        epoch, within = divmod(first, feed.steps)
        last_epoch = epoch + 1 if within else recipe.epochs
        model.fit(
            feed.batches(first, last_epoch * feed.steps),
            validation_data=validation,
            initial_epoch=epoch,
            epochs=last_epoch,
            steps_per_epoch=feed.steps - within,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )


def _full(places: Places) -> str:
    return (
        f"cannot write in {places.tensorboard.parent}, the disk is full; make room and run the same command again, or"
        " choose another folder by --runs"
    )


def _too_large(batch_size: int) -> str:
    advice = f"try --batch-size {batch_size // 2}" if batch_size > 1 else "make pictures smaller by --image-size"
    return f"expected a batch of {batch_size} rows to fit into the device's memory, it does not; {advice}"


def _score(line: dict[str, Any]) -> tuple[float, float]:
    return line["val_accuracy"], -line["val_loss"]


def _told(line: Epoch, epochs: int, *, is_best: bool) -> str:
    waited = "" if math.isnan(line.input_share) else f"  input {line.input_share:.0%}"
    return (
        f"epoch {line.epoch:>{len(str(epochs))}}/{epochs}  loss {line.loss:.4f}  accuracy {line.accuracy:.4f}"
        f"  val_loss {line.val_loss:.4f}  val_accuracy {line.val_accuracy:.4f}  {line.duration_s:.1f} s"
        f"  {line.images_per_s:,.0f} images/s{waited}{'  *' if is_best else ''}"
    )
