"""Where a training stands, on disk: enough to go on as if nothing had happened.

    <draft>/.checkpoint/
        state.npz       every variable of the model and the optimizer, the step, the history; replaced whole
        best-<n>.npz    the weights of epoch n, if the best epoch is what is kept and n is the best so far

Batches and learning rates follow from the step, dropout's random numbers from variables of the model, the moving
average is variables of the optimizer: there is nothing else to write down.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.files import replacing
from training.runs import STATE

_SCHEMA: Final = 1

Arrays = Sequence[NDArray[Any]]


@dataclass(slots=True)
class Progress:
    """How far a training has come.

    Args:
        step: Steps done, over all epochs.
        history: A line per finished epoch.
        best_epoch: Whose weights are kept so far, from 1; 0: none yet.
        begun: Means over the rows of an epoch that is not finished, and how many these are.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    begun: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Store:
    """The checkpoints of one training.

    Args:
        folder: Holds them.
    """

    folder: Path

    def save(self, model: Any, progress: Progress, *, best: bool) -> None:
        """Writes the state down, in place of the one before.

        Args:
            model: Compiled, with a built optimizer.
            progress: Where it stands.
            best: Whether the best epoch's weights are kept in a file of their own.

        Raises:
            TrainingError: The disk is full or cannot be written; the state before is intact.
        """
        arrays = {f"v{index}": array for index, array in enumerate(_arrays(_variables(model)))}
        facts = {
            "schema": _SCHEMA,
            "step": progress.step,
            "history": progress.history,
            "best_epoch": progress.best_epoch,
            "begun": progress.begun,
            "best_file": _best(progress.best_epoch) if best and progress.best_epoch else "",
        }
        self._write(STATE, {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8), **arrays})
        for file in self.folder.glob("best-*.npz"):
            if file.name != facts["best_file"]:
                file.unlink()

    def save_best(self, epoch: int, weights: Arrays) -> None:
        """Writes the weights of an epoch down; `save` makes them count, and removes those of earlier epochs.

        Raises:
            TrainingError: As for `save`.
        """
        self._write(_best(epoch), {f"v{index}": array for index, array in enumerate(weights)})

    def restore(self, model: Any) -> tuple[Progress, Arrays]:
        """Puts model and optimizer where the last checkpoint was, if there is one.

        Args:
            model: Compiled, with a built optimizer, made of the same settings.

        Returns:
            Where it stands, and the weights of its best epoch, if it has kept any.

        Raises:
            TrainingError: The checkpoint is damaged or of another version.
        """
        for file in self.folder.glob(".*"):
            file.unlink()  # what was being written when the process was killed
        if not (self.folder / STATE).is_file():
            return Progress(), ()
        try:
            facts, arrays = _read(self.folder / STATE)
            _assign(_variables(model), arrays)
            best = _read(self.folder / facts["best_file"])[1] if facts["best_file"] else ()
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"cannot continue from {self.folder} ({error}); start over by --fresh, or use the version that wrote it"
            ) from error
        return Progress(facts["step"], facts["history"], facts["best_epoch"], facts["begun"]), best

    def _write(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / name) as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stubs take allow_pickle for one of them
        except OSError as error:
            needed_mb = sum(array.nbytes for array in arrays.values()) / 1e6
            before = "the one before is intact: " if (self.folder / STATE).is_file() else ""
            raise TrainingError(
                f"cannot write the checkpoint {self.folder / name} ({error.strerror or error}); it needs"
                f" {needed_mb:,.1f} MB; {before}make room and run the same command again, or choose another folder by"
                " --runs"
            ) from error


def _best(epoch: int) -> str:
    return f"best-{epoch}.npz"


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _arrays(variables: Sequence[Any]) -> Arrays:
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def _assign(variables: Sequence[Any], arrays: Arrays) -> None:
    shapes = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
    if shapes[0] != shapes[1]:
        raise ValueError(f"expected {len(variables)} variables of this model, received others")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _read(file: Path) -> tuple[dict[str, Any], Arrays]:
    with np.load(file) as stored:
        facts = json.loads(stored["facts"].tobytes()) if "facts" in stored else {"schema": _SCHEMA}
        if facts["schema"] != _SCHEMA:
            raise ValueError(f"expected schema {_SCHEMA}, received {facts['schema']}")
        return facts, [stored[f"v{index}"] for index in range(len(stored.files) - ("facts" in stored))]
