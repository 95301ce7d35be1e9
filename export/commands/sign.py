"""`python -m export sign`."""

import argparse
from pathlib import Path
from typing import Any

from export import console
from export.commands.shared import add_command, add_name, checked_version, given
from export.settings import ExportSettings


def add(commands: Any) -> None:
    """Adds `sign` to the parser."""
    command = add_command(commands, "sign", "sign a bundle that is there, once its files have been checked")
    add_name(command)
    command.add_argument("--version", default="latest", help="(default: latest)")
    command.add_argument("--key", type=Path, required=True, help="private key, of keygen")
    command.set_defaults(command=_sign)


def _sign(options: argparse.Namespace) -> int:
    models, name = given(ExportSettings, options).models, options.name
    version = checked_version(models, name, options.version)
    from export import bundle, check, signing  # noqa: PLC0415

    key = signing.read_private_key(options.key)
    with bundle.exclusive(models, name, console.say):
        folder = models / name / str(version)
        check.check_bundle(folder)
        console.say(f"wrote {signing.sign(folder, key)}")
    return 0
