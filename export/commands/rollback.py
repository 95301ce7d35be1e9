"""`python -m export rollback`."""

import argparse
import json
from typing import Any

from export import console
from export.commands.shared import add_command, add_name, given, known_versions
from export.settings import ExportSettings


def add(commands: Any) -> None:
    """Adds `rollback` to the parser."""
    command = add_command(commands, "rollback", "return to what answered before the last promotion")
    add_name(command)
    command.add_argument("--dry-run", action="store_true", help="write nothing, print the policy")
    command.set_defaults(command=_rollback)


def _rollback(options: argparse.Namespace) -> int:
    models, name = given(ExportSettings, options).models, options.name
    known = known_versions(models, name)
    from export import promotion  # noqa: PLC0415

    if options.dry_run:
        console.say_json(promotion.rollback_target(models / name, known)[0])
        return 0
    policy = promotion.rollback(models, name, console.say)
    console.say(f"policy of {name}: {json.dumps(policy)}")
    return 0
