"""`python -m training explain`."""

import argparse
from pathlib import Path
from typing import Any, Final

from training import console, runs
from training.commands.shared import add_runs
from training.quiet import quiet_import

EXAMPLES: Final = """\
  python -m training explain photos                        Grad-CAM, feature maps and predictions of its test pictures
  python -m training explain photos --images cat.jpg       of your own
"""


def add(commands: Any) -> None:
    """Adds `explain` to the parser."""
    command = commands.add_parser(
        "explain",
        help="draw what a finished run's answers rest on",
        description="Draws predictions, Grad-CAM heat maps and feature maps of a run's pictures or of your own.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("run", metavar="RUN", help="a run folder, a name (its latest run), or NAME/NUMBER")
    command.add_argument(
        "--images", metavar="FILE", type=Path, nargs="+", help="your own (default: kept test pictures)"
    )
    command.add_argument("--layer", metavar="NAME", help="whose maps Grad-CAM weighs (default: the last convolution)")
    command.add_argument("--out", metavar="FOLDER", type=Path, help="for the figures (default: <run>/figures/explain)")
    add_runs(command)
    command.set_defaults(command=_explain)


def _explain(parsed: argparse.Namespace) -> None:
    run = runs.resolve(parsed.runs, parsed.run)
    with quiet_import():
        from training import explain  # noqa: PLC0415 (see the package's head)

    pictures = explain.own_pictures(run, parsed.images) if parsed.images else explain.sample_pictures(run)
    out = parsed.out or run.path / "figures" / "explain"
    explanation = explain.explain(run, pictures, out, parsed.layer)
    for line in explanation.predictions:
        truth = f"  (is {line['truth']})" if line["truth"] not in (None, line["predicted"]) else ""
        console.say(f"{line['name']:<24} {line['predicted']:<20} {line['probability']:>7.2%}{truth}")
    if explanation.layer is None:
        console.say("note: no Grad-CAM and no feature maps, because the model has no convolution")
    console.say(f"{len(explanation.files)} figures in {out}")
