"""Figures of a run, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COUNTS_UP_TO_CLASSES: Final = 20  # more cells than 20 × 20 leave no room for their numbers
_NAMES_UP_TO_CLASSES: Final = 50


def learning_curves(history: Sequence[dict[str, float]], file: Path) -> None:
    """Draws loss and accuracy over the epochs, training beside validation.

    Args:
        history: An entry per epoch with `epoch`, `loss`, `accuracy`, `val_loss` and `val_accuracy`.
        file: The PNG to write.
    """
    figure = _figure(10, 4)
    epochs = [line["epoch"] for line in history]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [line[quantity] for line in history], marker=".", label="training")
        axes.plot(epochs, [line[f"val_{quantity}"] for line in history], marker=".", label="validation")
        axes.set(title=quantity, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str], file: Path) -> None:
    """Draws the confusion matrix, shaded by the share of each true class.

    Args:
        matrix: Rows: truth, columns: prediction.
        names: `names[i]` names class i.
        file: The PNG to write.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_inch = min(16.0, 4.0 + 0.4 * len(names))
    figure = _figure(side_inch, side_inch)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(title="confusion on the test split", xlabel="predicted", ylabel="true")
    if len(names) <= _NAMES_UP_TO_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= _COUNTS_UP_TO_CLASSES:
        _write_counts(axes, counts, shares)
    figure.savefig(file)


def _write_counts(axes: Any, counts: Any, shares: Any) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004 (legible on either shade)
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)


def _figure(width_inch: float, height_inch: float) -> Any:
    figure = Figure(figsize=(width_inch, height_inch), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
