"""`python -m export keygen`."""

import argparse
from pathlib import Path
from typing import Any

from export import console
from export.commands.shared import add_command


def add(commands: Any) -> None:
    """Adds `keygen` to the parser."""
    command = add_command(commands, "keygen", "make a pair of keys to sign bundles with")
    command.add_argument("file", type=Path, help="the private key; the public one becomes FILE.pub")
    command.set_defaults(command=_keygen)


def _keygen(options: argparse.Namespace) -> int:
    from export import signing  # noqa: PLC0415

    public = signing.generate_keys(options.file)
    console.say(f"wrote {options.file} (keep it to yourself) and {public} (for servers: --trusted-keys {public})")
    return 0
