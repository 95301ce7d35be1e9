"""`python -m export list`."""

import argparse
from typing import Any

from export import console
from export.commands.shared import add_command, add_models, given
from export.settings import ExportSettings


def add(commands: Any) -> None:
    """Adds `list` to the parser."""
    command = add_command(commands, "list", "list every bundle")
    add_models(command)
    command.add_argument("--json", action="store_true", help="print JSON, a bundle a line")
    command.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    from google.protobuf import json_format  # noqa: PLC0415

    from export import bundle, report  # noqa: PLC0415

    models = given(ExportSettings, options).models
    found = [
        bundle.read_manifest(models / name / str(version))
        for name in bundle.names(models)
        for version in bundle.versions(models, name)
    ]
    if options.json:
        for manifest in found:
            console.say(json_format.MessageToJson(manifest, preserving_proto_field_name=True, indent=None))
    elif found:
        console.show(report.bundles_table(found))
    else:
        console.say(f"no bundle in {models}; make one: python -m export create --name NAME")
    return 0
