"""A comparison as people read it: lines for the console, a Markdown table, a figure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from training.errors import TrainingError
from training.figures import GREY, new_figure, save, short
from training.runs import write_json

_HEADS = ("contender", "accuracy %", "points gained", "macro F1", "loss", "ECE", "parameters", "epochs", "minutes")


def check(folder: Path) -> None:
    """Refuses a folder that cannot be written, before hours of training.

    Args:
        folder: Made if need be.

    Raises:
        TrainingError: It cannot be made or written.
    """
    with _refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()


def write(folder: Path, comparison: Mapping[str, Any]) -> None:
    """Writes `comparison.json`, `comparison.md` and `comparison.png`.

    Args:
        folder: Made if need be.
        comparison: What `compare.compare` returns.

    Raises:
        TrainingError: The folder cannot be written.
    """
    with _refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", comparison)
        (folder / "comparison.md").write_text(markdown(comparison), encoding="utf-8")
        draw(comparison, folder / "comparison.png")


def console_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Renders the table in columns, its head first."""
    table = [list(_HEADS), *(_cells(line) for line in comparison["contenders"])]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADS))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]


def markdown(comparison: Mapping[str, Any]) -> str:
    """Renders the table in Markdown, with the data and the runs below it."""
    data, contenders = comparison["data"], comparison["contenders"]
    head = [f"| {' | '.join(_HEADS)} |", f"|---|{'---:|' * (len(_HEADS) - 1)}"]
    body = [f"| {' | '.join(_escaped(cell) for cell in _cells(line))} |" for line in contenders]
    made = [f"- {_escaped(line['name'])}: {', '.join(map(_escaped, line['runs']))}" for line in contenders]
    seeds = ", ".join(map(str, comparison["seeds"]))
    notes = (
        f"Test split of {_escaped(data['source'])} ({data['fingerprint']}), seeds {seeds}: mean ± sample standard"
        " deviation. Points gained are points of accuracy against the first contender, seed by seed."
    )
    return "\n".join(["# Comparison", "", *head, *body, "", notes, "", "Runs:", "", *made, ""])


def draw(comparison: Mapping[str, Any], file: Path) -> None:
    """Draws test accuracy of every run, and validation accuracy over the epochs, averaged over the seeds.

    Args:
        comparison: What `compare.compare` returns.
        file: The PNG to write.
    """
    contenders = comparison["contenders"]
    figure = new_figure(11, max(3.4, 1.6 + 0.4 * len(contenders)))
    left, right = figure.subplots(1, 2)
    for place, line in enumerate(contenders):
        accuracy = line["accuracy"]
        (mark,) = left.plot(accuracy["values"], [place] * len(accuracy["values"]), "o", alpha=0.75)
        left.plot([accuracy["mean"]] * 2, [place - 0.3, place + 0.3], color=mark.get_color())
        curve = _mean_curve(line["validation_curves"])
        right.plot(range(1, len(curve) + 1), curve, marker=".", color=mark.get_color())
    left.set_yticks(range(len(contenders)), [_folded(line["name"]) for line in contenders], parse_math=False)
    left.set_ylim(len(contenders) - 0.5, -0.5)
    left.set(title="test accuracy: each run, and the mean", xlabel="accuracy")
    right.set(title="validation accuracy, mean over seeds", xlabel="epoch")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.grid(alpha=0.3, color=GREY)
    save(figure, file)


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"cannot write to {folder} ({error}); choose another folder with --out") from error


def _cells(line: Mapping[str, Any]) -> list[str]:
    return [
        line["name"],
        _told(line["accuracy"], scale=100, places=2),
        _told(line["points_gained"], scale=1, places=2, sign="+"),
        _told(line["macro_f1"], places=4),
        _told(line["loss"], places=4),
        _told(line["ece"], places=4),
        f"{line['parameters']:,}",
        f"{line['epochs']:.0f}",
        f"{line['training_s'] / 60:.1f}",
    ]


def _told(measure: Mapping[str, Any], *, places: int, scale: float = 1, sign: str = "") -> str:
    mean = f"{scale * measure['mean']:{sign}.{places}f}"
    return mean if measure["deviation"] is None else f"{mean} ± {scale * measure['deviation']:.{places}f}"


def _mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """Averages over the runs that reached an epoch."""
    longest = max(len(curve) for curve in curves)
    return [float(np.mean([curve[epoch] for curve in curves if epoch < len(curve)])) for epoch in range(longest)]


def _folded(name: str) -> str:
    """Puts the settings in a contender's name on lines of their own."""
    return "\n".join(short(part) for part in name.replace(":", ":,").split(","))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
