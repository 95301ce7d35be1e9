"""`python -m export copy`."""

import argparse
from typing import Any, Final

from export import console
from export.commands.shared import add_command, add_models, add_trusted_keys, checked_version, given
from export.errors import ExportError
from export.settings import ExportSettings

EXAMPLES: Final = """\
  python -m export copy digits/3 /mnt/models            becomes /mnt/models/digits/3
  python -m export copy digits/latest s3://bucket/models    with the package s3fs
"""


def add(commands: Any) -> None:
    """Adds `copy` to the parser."""
    command = add_command(commands, "copy", "copy a bundle to another folder or an object store", examples=EXAMPLES)
    command.add_argument("bundle", metavar="NAME/VERSION", help="which one; VERSION may be latest")
    command.add_argument("url", help="folder of bundles: a path, or file://, s3://, … (fsspec's)")
    add_models(command)
    add_trusted_keys(command)
    command.set_defaults(command=_copy)


def _copy(options: argparse.Namespace) -> int:
    settings = given(ExportSettings, options)
    name, slash, wanted = options.bundle.partition("/")
    if not slash:
        raise ExportError(f"expected NAME/VERSION, such as digits/3 or digits/latest, received {options.bundle!r}")
    version = checked_version(settings.models, name, wanted)
    from export import transfer  # noqa: PLC0415

    folder = settings.models / name / str(version)
    console.say(f"wrote {transfer.push(folder, options.url, settings.trusted_keys)}")
    return 0
