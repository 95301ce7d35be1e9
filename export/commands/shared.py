"""What several commands share: flags made of settings, and finding what the words name."""

import argparse
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic_settings import BaseSettings

from export.errors import ExportError
from export.settings import NAME_PATTERN, ExportSettings

Settings = TypeVar("Settings", bound=BaseSettings)


def add_command(commands: Any, name: str, text: str, *, examples: str = "") -> argparse.ArgumentParser:
    """Adds a command with the flags that all of them have.

    Args:
        commands: The parser's.
        name: Of the command.
        text: What it does, in a line.
        examples: Printed at the end of its help.
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--verbose", action="store_true", help="leave what the libraries print on the terminal")
    return command


def add_settings(parser: Any, settings: type[BaseSettings], *only: str) -> None:
    """Adds a flag for each settings field.

    Args:
        parser: Of the command, or a group of it.
        settings: Whose fields.
        only: The fields' names; none for all of them.
    """
    for name, field in settings.model_fields.items():
        if only and name not in only:
            continue
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        told = "" if default is None else f" (default: {default})"
        help_text = f"{field.description}{told}".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=argparse.SUPPRESS, help=help_text)


def add_models(parser: Any) -> None:
    """Adds `--models`."""
    add_settings(parser, ExportSettings, "models")


def add_name(parser: Any) -> None:
    """Adds the model's name and `--models`."""
    parser.add_argument("name", help="the model's name")
    add_models(parser)


def add_trusted_keys(parser: Any) -> None:
    """Adds `--trusted-keys`."""
    add_settings(parser, ExportSettings, "trusted_keys")


def given(settings: type[Settings], options: argparse.Namespace) -> Settings:
    """Fills settings with the flags that were given.

    Args:
        settings: Which.
        options: The parsed command line.
    """
    return settings(**{name: value for name, value in vars(options).items() if name in settings.model_fields})


def first_line(settings: type[BaseSettings]) -> str:
    """The first line of the docstring."""
    return (settings.__doc__ or "").partition("\n")[0]


def checked_name(name: str) -> str:
    """Refuses what can be no model's name, such as a path.

    Raises:
        ExportError: It is none.
    """
    if not re.match(NAME_PATTERN, name):
        raise ExportError(f"expected a name of letters, digits, '.', '_' and '-', received {name!r}")
    return name


def known_versions(models: Path, name: str) -> list[int]:
    """Lists a model's versions, oldest first.

    Raises:
        ExportError: There are none.
    """
    from export import bundle  # noqa: PLC0415 - NumPy takes its time

    known = bundle.versions(models, checked_name(name))
    if not known:
        raise ExportError(f"expected a model out of {bundle.names(models)} in {models}, received {name!r}")
    return known


def checked_version(models: Path, name: str, wanted: str) -> int:
    """Finds a version.

    Args:
        models: Folder of bundles.
        name: The model's name.
        wanted: A number, or `latest`.

    Raises:
        ExportError: There is no such version.
    """
    known = known_versions(models, name)
    if wanted == "latest":
        return known[-1]
    if wanted not in map(str, known):
        raise ExportError(f"expected version latest or one of {known} of {name}, received {wanted!r}")
    return int(wanted)
