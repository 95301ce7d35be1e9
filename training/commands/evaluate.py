"""`python -m training evaluate`."""

import argparse
from typing import Any

from training import console, runs
from training.commands.shared import add_runs, tell
from training.quiet import quiet_import


def add(commands: Any) -> None:
    """Adds `evaluate` to the parser."""
    command = commands.add_parser(
        "evaluate",
        help="measure a finished run again",
        description="Measures a run on its held-out rows, prints the result, and rewrites metrics.json and figures/.",
    )
    command.add_argument("run", metavar="RUN", help="a run folder, a name (its latest run), or NAME/NUMBER")
    add_runs(command)
    command.set_defaults(command=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> None:
    finished = runs.resolve(parsed.runs, parsed.run)
    with quiet_import():
        from training.evaluate import evaluate  # noqa: PLC0415 (see the module's head)

    measured = evaluate(finished)
    tell(finished, measured)
    console.say(f"       {'class':<20} precision  recall      F1    rows")
    for line in measured["test"]["classes"]:
        console.say(
            f"       {line['label']:<20} {line['precision']:>9.4f} {line['recall']:>7.4f} {line['f1']:>7.4f}"
            f" {line['rows']:>7,}"
        )
