"""Figures of a run, drawn without a display."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE: Final = "#2f6fb3"
ORANGE: Final = "#d9742b"
GREY: Final = "#8a8a8a"

_COUNTS_UP_TO_CLASSES: Final = 20  # more cells than 20 × 20 leave no room for their numbers
_NAMES_UP_TO_CLASSES: Final = 50
_NAME_LETTERS: Final = 24
_NOT_MATHS: Final = {"parse_math": False}  # a class may be named `$5` and `$10`, which is no formula


def learning_curves(history: Sequence[dict[str, float]], file: Path) -> None:
    """Draws loss and accuracy over the epochs, training beside validation, and the learning rate.

    Args:
        history: An entry per epoch with `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy` and `learning_rate`.
        file: The PNG to write.
    """
    figure = new_figure(12, 3.6)
    epochs = [line["epoch"] for line in history]
    every = figure.subplots(1, 3)
    for axes, quantity in zip(every[:2], ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [line[quantity] for line in history], marker=".", color=BLUE, label="training")
        axes.plot(epochs, [line[f"val_{quantity}"] for line in history], marker=".", color=ORANGE, label="validation")
        axes.set(title=quantity, xlabel="epoch")
        axes.legend()
    every[2].plot(epochs, [line["learning_rate"] for line in history], marker=".", color=GREY)
    every[2].set(title="learning rate", xlabel="epoch")
    every[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axes in every:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    save(figure, file)


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
    figure = new_figure(side_inch, side_inch * 0.87)  # the colour bar takes the difference
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    axes.set(title="confusion on the test split", xlabel="predicted", ylabel="true")
    if len(names) <= _NAMES_UP_TO_CLASSES:
        shown = [short(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90, **_NOT_MATHS)
        axes.set_yticks(range(len(names)), shown, **_NOT_MATHS)
    if len(names) <= _COUNTS_UP_TO_CLASSES:
        _write_counts(axes, counts, shares)
    save(figure, file)


def per_class(classes: Sequence[dict[str, Any]], file: Path) -> None:
    """Draws F1 of every class as a bar, the weakest on top, with precision and recall as marks on it.

    Args:
        classes: Entries with `label`, `precision`, `recall` and `f1`. Of more than 50, the 50 weakest are drawn.
        file: The PNG to write.
    """
    weakest = sorted(classes, key=lambda line: (line["f1"], line["label"]))[:_NAMES_UP_TO_CLASSES]
    figure = new_figure(8, 1.6 + 0.27 * len(weakest))
    axes = figure.subplots()
    places = np.arange(len(weakest))
    axes.barh(places, [line["f1"] for line in weakest], color=BLUE, alpha=0.45, height=0.7, label="F1")
    axes.scatter([line["precision"] for line in weakest], places, marker="|", s=90, color=BLUE, label="precision")
    axes.scatter([line["recall"] for line in weakest], places, marker="x", s=24, color=ORANGE, label="recall")
    axes.set_yticks(places, [short(line["label"]) for line in weakest], **_NOT_MATHS)
    axes.set_ylim(len(weakest) - 0.4, -0.6)
    of_how_many = f"the {len(weakest)} weakest of {len(classes)} classes" if len(weakest) < len(classes) else "classes"
    axes.set(title=f"{of_how_many} on the test split", xlim=(0, 1.02))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, file)


def reliability(bins: Sequence[dict[str, Any]], error: float, file: Path) -> None:
    """Draws the reliability diagram: accuracy against confidence, and below it how many rows there are.

    Args:
        bins: What `metrics.reliability` returns.
        error: The expected calibration error, 0..1.
        file: The PNG to write.
    """
    figure = new_figure(5.2, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = bins[0]["up_to"] - bins[0]["above"]
    filled = [one for one in bins if one["rows"]]
    middles = [(one["above"] + one["up_to"]) / 2 for one in filled]
    accuracy = np.array([one["accuracy"] for one in filled])
    gap = np.array([one["confidence"] for one in filled]) - accuracy
    upper.bar(middles, accuracy, width=width * 0.92, color=BLUE, alpha=0.6, label="accuracy")
    upper.bar(middles, gap, bottom=accuracy, width=width * 0.92, fill=False, edgecolor=ORANGE, hatch="//", label="gap")
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="confidence = accuracy")
    upper.set(title=f"reliability on the test split: ECE {error:.4f}", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(middles, [one["rows"] for one in filled], width=width * 0.92, color=GREY)
    lower.set(xlabel="confidence", ylabel="rows")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    save(figure, file)


def new_figure(width_inch: float, height_inch: float) -> Any:
    """Makes a figure that needs no display and no global state."""
    figure = Figure(figsize=(width_inch, height_inch), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, file: Path) -> None:
    """Writes a figure; a letter that the font lacks is drawn as a box, without a warning for each of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file)


def short(name: str) -> str:
    """Returns a class's name that leaves room for the figure."""
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"


def _write_counts(axes: Any, counts: Any, shares: Any) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004 (legible on either shade)
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
