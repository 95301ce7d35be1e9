"""What the commands print: lines for people, and JSON for programs."""

import json
import sys
from typing import Any


def say(line: str) -> None:
    """Prints a line as it is, now: somebody may be watching a long export through a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_json(value: Any) -> None:
    """Prints a value as JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def show(*tables: Any) -> None:
    """Prints tables of `rich`.

    Args:
        tables: Anything that it can render.
    """
    from rich.console import Console  # noqa: PLC0415 - `--help` needs none

    # Outside a terminal, in a log or a pipe, nothing tells the width: wide enough for every table.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for table in tables:
        console.print(table)
