"""What several commands share: flags made of settings, and how a run's result is told."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from training import console, runs
from training.errors import TrainingError
from training.recipe import DEFAULTS


def add_flag(command: argparse.ArgumentParser, name: str, field: Any) -> None:
    """Adds the flag of one settings field: its name, choices, default and help."""
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        action = argparse.BooleanOptionalAction if field.default else "store_true"
        command.add_argument(flag, action=action, default=None, help=field.description)
    elif name == "set":
        command.add_argument(flag, action="append", metavar="KEY=VALUE", help=field.description)
    else:
        metavar = "|".join(_choices(field.annotation)) or name.rsplit("_", 1)[-1].upper()
        without_value = (field.json_schema_extra or {}).get("without_value")
        how = {"nargs": "?", "const": without_value} if without_value else {}
        command.add_argument(flag, metavar=metavar, help=_help(name, field), **how)


def _help(name: str, field: Any) -> str:
    if field.default is None:
        usual = f", else {DEFAULTS[name]}" if name in DEFAULTS else ""
        return f"{field.description} (default: the model's own{usual})"
    return str(
        field.description if field.default in ("", "auto") else f"{field.description} (default: {field.default})"
    )


def _choices(annotation: Any) -> list[str]:
    """Lists the words of a Literal, be it optional."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return [word for part in parts for word in (_choices(part) if get_args(part) else [part]) if isinstance(word, str)]


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
