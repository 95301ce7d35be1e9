"""`python -m export pull`."""

import argparse
from typing import Any, Final

from export import console
from export.commands.shared import add_command, add_models, add_trusted_keys, given
from export.settings import ExportSettings

EXAMPLES: Final = """\
  python -m export pull /mnt/models/digits/3
  python -m export pull s3://bucket/models/digits/3 --trusted-keys release.key.pub
"""


def add(commands: Any) -> None:
    """Adds `pull` to the parser."""
    command = add_command(
        commands, "pull", "fetch a bundle by URL, check it and put it among the others", examples=EXAMPLES
    )
    command.add_argument("url", help="of the bundle: a path, or file://, s3://, … (fsspec's), ending in NAME/VERSION")
    add_models(command)
    add_trusted_keys(command)
    command.set_defaults(command=_pull)


def _pull(options: argparse.Namespace) -> int:
    settings = given(ExportSettings, options)
    from export import transfer  # noqa: PLC0415

    folder, fetched = transfer.pull(options.url, settings.models, settings.trusted_keys, console.say)
    console.say(f"wrote {folder}" if fetched else f"{folder} is there already, the same bundle")
    return 0
