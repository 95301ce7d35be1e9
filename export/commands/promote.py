"""`python -m export promote`."""

import argparse
import re
from typing import Any, Final

from export import console
from export.commands.shared import add_command, add_name, add_trusted_keys, checked_version, given
from export.errors import ExportError
from export.settings import ExportSettings

EXAMPLES: Final = """\
  python -m export promote digits 4                               at once
  python -m export promote digits 4 --canary 10                   a tenth, until the next promote or rollback
  python -m export promote digits 4 --steps 10,50,100 --every 5m  a tenth, half, all; Ctrl-C leaves the step in force
  python -m export promote digits 4 --dry-run                     print the policies
"""
INTERRUPTED: Final = 130
_ALL: Final = 100.0
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)")
_UNITS_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def add(commands: Any) -> None:
    """Adds `promote` to the parser."""
    command = add_command(commands, "promote", "let a version answer, at once or in steps", examples=EXAMPLES)
    add_name(command)
    command.add_argument("version", help="the version's number, or latest")
    steps = command.add_mutually_exclusive_group()
    steps.add_argument("--canary", metavar="PERCENT", help="one step: so much of the requests, and leave it there")
    steps.add_argument("--steps", metavar="PERCENT,…", help="growing shares of the requests (default: 100)")
    command.add_argument("--every", default="60s", metavar="TIME", help="between two steps: 90s, 5m, 1h (default: 60s)")
    command.add_argument("--dry-run", action="store_true", help="write nothing, print the policies")
    add_trusted_keys(command)
    command.set_defaults(command=_promote)


def _promote(options: argparse.Namespace) -> int:
    settings = given(ExportSettings, options)
    models, name = settings.models, options.name
    version = checked_version(models, name, options.version)
    steps, every_s = read_steps(options.canary or options.steps or "100"), read_duration_s(options.every)
    from export import bundle, check, promotion  # noqa: PLC0415

    if options.dry_run:
        check.check_bundle(models / name / str(version), settings.trusted_keys)
        planned = promotion.plan(models / name, bundle.versions(models, name), version, steps)
        for policy in planned.policies:
            console.say_json(policy)
        return 0
    try:
        promotion.promote(
            models, name, version, steps, every_s=every_s, say=console.say, trusted_keys=settings.trusted_keys
        )
    except KeyboardInterrupt:
        console.say(f"interrupted: this step stays; promote {name} {version} goes on, rollback {name} takes it back")
        return INTERRUPTED
    return 0


def read_steps(text: str) -> list[float]:
    """Reads shares such as "10,50,100".

    Raises:
        ExportError: They are no growing percentages.
    """
    try:
        steps = [float(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if not steps or not all(0 < step <= _ALL for step in steps) or sorted(set(steps)) != steps:
        raise ExportError(f"expected growing percentages up to 100, such as 10,50,100, received {text!r}")
    return steps


def read_duration_s(text: str) -> float:
    """Reads a time such as "90s", "5m" or "1h", in seconds.

    Raises:
        ExportError: It is none.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ExportError(f"expected a time such as 90s, 5m or 1h, received {text!r}")
    return float(found[1]) * _UNITS_S[found[2]]
