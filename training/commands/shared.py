"""What several commands share: flags made of settings, and how a run's result is told."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from training import console, runs
from training.errors import TrainingError


def add_flag(command: argparse.ArgumentParser, name: str, field: Any) -> None:
    """Adds the flag of one settings field: its name, choices, default and help."""
    flag = f"--{name.replace('_', '-')}"
    default = field.default
    text = field.description if default in ("", "auto") else f"{field.description} (default: {default})"
    if field.annotation is bool:
        command.add_argument(flag, action="store_true", default=None, help=field.description)
    elif name == "set":
        command.add_argument(flag, action="append", metavar="KEY=VALUE", help=field.description)
    else:
        choices = [str(choice) for choice in get_args(field.annotation)]
        command.add_argument(flag, metavar="|".join(choices) or name.rsplit("_", 1)[-1].upper(), help=text)


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """Reads `KEY=VALUE` words.

    Raises:
        TrainingError: A word has no key or no `=`.
    """
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise TrainingError(f"--set: expected KEY=VALUE; received '{text}'")
    return dict(text.split("=", 1) for text in texts)


def add_runs(command: argparse.ArgumentParser) -> None:
    """Adds `--runs`."""
    command.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs (default: runs)")


def tell(run: runs.Run, measured: dict[str, Any]) -> None:
    """Prints a run's result in one line."""
    test, validation = measured["test"], measured["validation"]
    console.say(
        f"test   accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}, macro F1 {test['macro']['f1']:.4f}"
        f" on {test['rows']:,} rows (validation accuracy {validation['accuracy']:.4f});"
        f" {run.record['parameters']:,} parameters"
    )
