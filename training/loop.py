"""The training loop: seeds, optimizer, schedule, stopping, the best epoch's weights.

    model, batches ──fit──▶ epoch ──▶ history, TensorBoard, progress
                              └─ best so far by validation accuracy, then loss ──▶ checkpoint

What the last epoch leaves in the model is not what is kept: the caller loads the checkpoint.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import keras

from training import console
from training.errors import TrainingError

PLATEAU_EPOCHS: Final = 3  # with no lower validation loss, after which the learning rate is halved
_SMALLEST_LEARNING_RATE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history.

    Args:
        epoch: From 1.
        loss: Mean over the training batches, dropout and augmentation included.
        accuracy: Likewise, 0..1.
        val_loss: On the validation split after the epoch.
        val_accuracy: Likewise, 0..1.
        learning_rate: Used in the epoch.
        duration_s: Wall time, validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    duration_s: float


@dataclass(slots=True)
class Recorder:
    """Writes every epoch down and keeps the best one's weights.

    Args:
        model: The model in training.
        checkpoint: File for the best weights.
        epochs: At most so many, for the display.
        history: Filled epoch by epoch.
    """

    model: Any
    checkpoint: Path
    epochs: int
    history: list[Epoch] = field(default_factory=list)
    _best: tuple[float, float] = (-1.0, -math.inf)
    _began_s: float = 0.0

    def begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002 (Keras's names)
        """Starts the clock of an epoch."""
        self._began_s = time.perf_counter()

    def end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Takes an epoch's figures.

        Raises:
            TrainingError: The loss is no number any more.
        """
        line = Epoch(
            epoch=epoch + 1,
            **{key: float(logs[key]) for key in ("loss", "accuracy", "val_loss", "val_accuracy")},
            learning_rate=float(self.model.optimizer.learning_rate),
            duration_s=time.perf_counter() - self._began_s,
        )
        if not math.isfinite(line.loss + line.val_loss):
            raise TrainingError(
                f"expected a finite loss, received {line.loss} in epoch {line.epoch}; lower --learning-rate"
                f" (it was {line.learning_rate:g})"
            )
        self.history.append(line)
        self._keep(line)

    def _keep(self, line: Epoch) -> None:
        score = (line.val_accuracy, -line.val_loss)
        is_best = score > self._best
        if is_best:
            self._best = score
            self.model.save_weights(self.checkpoint)
        console.say(_told(line, self.epochs, is_best=is_best))


def fit(
    model: Any,
    batches: Any,
    validation: Any,
    *,
    epochs: int,
    learning_rate: float,
    patience: int,
    checkpoint: Path,
    tensorboard: Path,
) -> list[Epoch]:
    """Trains a model until it stops getting better.

    Args:
        model: Uncompiled; its weights are changed.
        batches: A `tf.data.Dataset` of training batches.
        validation: A `tf.data.Dataset` of validation batches.
        epochs: At most so many.
        learning_rate: Adam's first one; halved whenever the validation loss does not fall for 3 epochs.
        patience: Stop after so many epochs with no lower validation loss.
        checkpoint: Receives the weights of the best epoch by validation accuracy, then loss; ends in `.weights.h5`.
        tensorboard: Folder for TensorBoard's logs.

    Returns:
        The history, an entry per epoch.

    Raises:
        TrainingError: The loss became infinite or no number.
    """
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    recorder = Recorder(model, checkpoint, epochs)
    steps = int(batches.cardinality())
    with console.progress("training", epochs * steps) as advance:
        callbacks = [
            keras.callbacks.LambdaCallback(on_epoch_begin=recorder.begin, on_epoch_end=recorder.end),
            _stepping(advance),
            keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=PLATEAU_EPOCHS, min_lr=_SMALLEST_LEARNING_RATE),
            keras.callbacks.EarlyStopping(patience=patience),
            keras.callbacks.TensorBoard(tensorboard, write_graph=False),
        ]
        model.fit(batches, validation_data=validation, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0)
    return recorder.history


def _stepping(advance: Callable[[int], None]) -> Any:
    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: advance(1))  # noqa: ARG005 (Keras's names)


def _told(line: Epoch, epochs: int, *, is_best: bool) -> str:
    return (
        f"epoch {line.epoch:>{len(str(epochs))}}/{epochs}  loss {line.loss:.4f}  accuracy {line.accuracy:.4f}"
        f"  val_loss {line.val_loss:.4f}  val_accuracy {line.val_accuracy:.4f}  {line.duration_s:.1f} s"
        f"{'  *' if is_best else ''}"
    )
