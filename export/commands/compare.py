"""`python -m export compare`."""

import argparse
from typing import Any

from export import console
from export.commands.shared import add_command, add_name, checked_version, given
from export.settings import ExportSettings


def add(commands: Any) -> None:
    """Adds `compare` to the parser."""
    command = add_command(commands, "compare", "show two versions side by side")
    add_name(command)
    command.add_argument("one", help="a version")
    command.add_argument("other", help="another one")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    models, name = given(ExportSettings, options).models, options.name
    one, other = (checked_version(models, name, version) for version in (options.one, options.other))
    from export import comparison  # noqa: PLC0415

    compared = comparison.compare(models / name / str(one), models / name / str(other))
    if options.json:
        console.say_json(compared.as_json())
    else:
        console.show(*comparison.tables(compared))
    return 0
