"""`python -m export show`."""

import argparse
import sys
from typing import Any

from export import console
from export.commands.shared import add_command, add_name, checked_version, given
from export.settings import ExportSettings


def add(commands: Any) -> None:
    """Adds `show` to the parser."""
    command = add_command(commands, "show", "show one bundle, and what was refused and why")
    add_name(command)
    command.add_argument("--version", default="latest", help="(default: latest)")
    command.add_argument("--json", action="store_true", help="print the manifest")
    command.set_defaults(command=_show)


def _show(options: argparse.Namespace) -> int:
    models = given(ExportSettings, options).models
    version = checked_version(models, options.name, options.version)
    from export import bundle, report  # noqa: PLC0415

    folder = models / options.name / str(version)
    manifest = bundle.read_manifest(folder)
    if options.json:
        sys.stdout.write(bundle.manifest_json(manifest).decode())
        return 0
    console.show(report.facts_table(manifest, folder), report.variants_table(manifest, bundle.read_report(folder)))
    return 0
