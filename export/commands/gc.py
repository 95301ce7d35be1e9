"""`python -m export gc`."""

import argparse
from typing import Any

from export import console
from export.commands.shared import add_command, add_name, given, known_versions
from export.errors import ExportError
from export.settings import ExportSettings


def add(commands: Any) -> None:
    """Adds `gc` to the parser."""
    command = add_command(commands, "gc", "delete old versions that nothing refers to")
    add_name(command)
    command.add_argument("--keep", default="3", metavar="N", help="how many of the newest stay (default: 3)")
    command.add_argument("--dry-run", action="store_true", help="delete nothing, say what would go")
    command.set_defaults(command=_gc)


def _gc(options: argparse.Namespace) -> int:
    models, name = given(ExportSettings, options).models, options.name
    known_versions(models, name)
    if not options.keep.isdecimal() or int(options.keep) < 1:
        raise ExportError(f"expected --keep of at least 1: numbers are never reused, received {options.keep!r}")
    from export import bundle, garbage, report  # noqa: PLC0415

    folder = models / name
    with bundle.exclusive(models, name, console.say):
        sorted_out = garbage.sort_versions(folder, bundle.versions(models, name), int(options.keep))
        for version, reason in sorted_out.kept.items():
            console.say(f"keep    {version}: {reason}")
        for version in sorted_out.spare:
            console.say(f"delete  {version}: {report.size(garbage.size_bytes(folder / str(version)))}")
        if not options.dry_run:
            console.say(f"freed {report.size(garbage.collect(folder, sorted_out.spare))}")
    return 0
