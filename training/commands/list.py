"""`python -m training list`."""

import argparse
from typing import Any

from training import console, runs
from training.commands.shared import add_runs
from training.errors import TrainingError


def add(commands: Any) -> None:
    """Adds `list` to the parser."""
    command = commands.add_parser("list", help="list the finished runs", description="Lists the finished runs.")
    add_runs(command)
    command.set_defaults(command=_list)


def _list(parsed: argparse.Namespace) -> None:
    found = runs.every(parsed.runs)
    if not found:
        console.say(f"no runs in {parsed.runs} yet; make one with `python -m training train`")
        return
    console.say(f"{'run':<24} {'model':<8} {'accuracy':>8} {'parameters':>11}  {'epochs':>6}  created")
    for one in found:
        record = one.record
        console.say(
            f"{one.name + '/' + str(one.number):<24} {record['model']:<8} {_accuracy(one):>8}"
            f" {record['parameters']:>11,}  {record['epochs']:>6}  {record['created_at']}"
        )


def _accuracy(run: runs.Run) -> str:
    """Returns "?" for a run whose figures cannot be read; `evaluate` tells why."""
    try:
        return f"{run.metrics()['test']['accuracy']:.4f}"
    except (TrainingError, KeyError):
        return "?"
