"""The command line: flags made from the Settings model, faults told in one line each, and docs/settings.md.

argv + SHOAL_* + YAML ──▶ Settings, or a StartupError with one line for each fault
"""

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from yaml import YAMLError

from server.errors import StartupError
from server.settings import ENV_PREFIX, GROUPS, Settings

DESCRIPTION: Final = """\
Serves the bundles in a models folder over HTTP and gRPC.

A new version that appears while the server runs is checked, warmed and swapped in; no request fails. SIGTERM finishes
what was accepted and stops."""

EXAMPLES: Final = """\
examples:
  python -m server                                       # models/ on HTTP :8000 and gRPC :8001
  python -m server --models models --http-port 9000
  python -m server --host 0.0.0.0 --log-format json      # in a container
  python -m server --providers cuda,cpu                  # the GPU, or the CPU where there is none
  SHOAL_LATENCY_BUDGET_MS=50 python -m server            # every flag is also a variable
  python -m server --config server.yaml                  # ... and a line of YAML

then:
  curl -F file=@picture.png http://127.0.0.1:8000/predict
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message}; see python -m server --help")


def read_settings(arguments: Sequence[str]) -> Settings:
    """Reads flags, variables and the YAML file.

    Args:
        arguments: The command line without the program's name.

    Raises:
        StartupError: A setting is unknown or wrong; one line for each, naming where it was set.
        SystemExit: `--help` or `--print-settings-docs` has printed what was asked for.
    """
    flags = vars(build_parser().parse_args(arguments))
    if flags.pop("print_settings_docs", False):
        print(settings_docs(), end="")  # noqa: T201  it is what the flag asks for
        raise SystemExit(0)
    config = flags.get("config") or os.environ.get(ENV_PREFIX + "CONFIG")
    if config and not Path(config).is_file():
        raise StartupError(f"{_where('config', flags)}: expected a YAML file of settings, there is no file {config}")
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise StartupError("\n".join(_line(fault, flags) for fault in error.errors())) from None
    except (YAMLError, OSError, TypeError, ValueError) as error:
        raise StartupError(f"expected a YAML file of settings in {config}: {' '.join(str(error).split())}") from error


def build_parser() -> argparse.ArgumentParser:
    """A parser with one flag for each setting; a flag that is not given leaves no trace."""
    parser = _Parser(
        prog="python -m server",
        usage="python -m server [--models FOLDER] [--http-port PORT] [--grpc-port PORT] [flags]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            field = Settings.model_fields[name]
            text = f"{field.description} {_spell_default(field)}".replace("%", "%%")
            group.add_argument(_flag(name), dest=name, metavar=_metavar(name, field), help=text)
    parser.add_argument("--print-settings-docs", action="store_true", help="Print docs/settings.md and exit.")
    return parser


def settings_docs() -> str:
    """The page docs/settings.md, made from the Settings model."""
    lines = [
        "# Settings of the server",
        "",
        "<!-- Written by `python -m server --print-settings-docs`; edit server/settings.py instead. -->",
        "",
        "Each can be a flag, an environment variable or a line of the YAML file that `--config` names. A flag",
        "overrides a variable, a variable overrides the file, and the file overrides the default.",
    ]
    for title, names in GROUPS.items():
        lines += ["", f"## {title}", "", "| flag | variable | default | meaning |", "|---|---|---|---|"]
        lines += [_row(name, Settings.model_fields[name]) for name in names]
    return "\n".join(lines) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join(part for part in (field.description, _spell_choices(field), _spell_bounds(field)) if part)
    default = _text(field.default)
    return " | ".join(
        (
            f"| `{_flag(name)}`",
            f"`{_variable(name)}`",
            f"`{default}`" if default else "(empty)",
            f"{meaning.replace('|', chr(92) + '|').replace('<', '&lt;')} |",
        )
    )


def _spell_default(field: FieldInfo) -> str:
    default = _text(field.default)
    return f"[{default}]" if default else ""


def _spell_choices(field: FieldInfo) -> str:
    choices = _choices(field)
    return f"One of {', '.join(choices)}." if choices else ""


def _spell_bounds(field: FieldInfo) -> str:
    low, high = _bound(field, "ge"), _bound(field, "le")
    above = _bound(field, "gt")
    if above is not None:
        return f"Above {above}."
    if low is not None and high is not None:
        return f"From {low:,} to {high:,}."
    return f"At least {low:,}." if low is not None else ""


def _bound(field: FieldInfo, kind: str) -> float | None:
    return next((getattr(rule, kind) for rule in field.metadata if hasattr(rule, kind)), None)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    choices: tuple[Any, ...] = getattr(field.annotation, "__args__", ())
    return tuple(choices) if all(isinstance(choice, str) for choice in choices) else ()


def _metavar(name: str, field: FieldInfo) -> str:
    choices = _choices(field)
    if choices:
        return "{" + ",".join(choices) + "}"
    suffix = name.rsplit("_", 1)[-1]
    if field.annotation in (int, float):
        return {"ms": "MS", "s": "SECONDS", "bytes": "BYTES", "port": "PORT"}.get(suffix, "N")
    return {"models": "FOLDER", "config": "FILE", "file": "FILE", "keys": "PATH"}.get(suffix, suffix.upper())


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _line(fault: ErrorDetails, flags: Mapping[str, Any]) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    where = _where(name, flags)
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"{where}: no such setting" + (f"; did you mean {close[0]}?" if close else "; see --help")
    expected = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.replace("a valid number, unable to parse string as a number", "a number")
    expected = expected.replace("a valid integer, unable to parse string as an integer", "a whole number")
    return f"{where}: expected {expected[0].lower()}{expected[1:]}, received {fault['input']!r}"


def _where(name: str, flags: Mapping[str, Any]) -> str:
    if name in flags:
        return _flag(name)
    if name in Settings.model_fields and _variable(name) in os.environ:
        return _variable(name)
    config = flags.get("config") or os.environ.get(ENV_PREFIX + "CONFIG")
    return f"{name} in {Path(config)}" if config else name
