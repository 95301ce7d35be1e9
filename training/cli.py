"""The command line of `python -m training`: one parser, to which each module of `training.commands` adds its own."""

import argparse
from collections.abc import Sequence
from typing import Final

from training.commands import compare, evaluate, explain, train, tune, validate
from training.commands import list as list_command

COMMANDS: Final = (validate, train, tune, evaluate, explain, compare, list_command)
_EXAMPLES: Final = f"""\
examples:
{train.EXAMPLES}\
  python -m training validate --data photos                copies, corrupt files, leaks: before you train
  python -m training evaluate photos                       the latest run of that name
  python -m training list
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser; the flags of `train` come from `TrainSettings`."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Trains an image classifier from labelled pictures and keeps every run in a folder of its own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return top


def run(arguments: Sequence[str]) -> None:
    """Runs one command.

    Args:
        arguments: As on the command line, less the program.

    Raises:
        TrainingError: The user's input is not usable.
        SystemExit: The words are no command (code 2), or help was asked for (code 0).
    """
    parsed = parser().parse_args(arguments)
    parsed.command(parsed)
