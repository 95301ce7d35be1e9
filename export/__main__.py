"""`python -m export create | list | show`: the command line."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import IO, Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from export import quiet
from export.errors import ExportError, GateFailed
from export.settings import NAME_PATTERN, ExportSettings, Gates

Settings = TypeVar("Settings", bound=BaseSettings)

EXAMPLES = """examples:
  python -m export create --name digits                     the latest run of runs/digits becomes the next version
  python -m export create --name cifar10 --run 3            a certain run
  python -m export create --name cifar10 --variants float32 no quantization
  python -m export create --name cifar10 --min-agreement 0.99 --max-accuracy-drop 0.002 --min-speedup 2
  python -m export list                                     every bundle in models/
  python -m export show cifar10 --version 2                 one bundle, with what was refused and why

exit codes: 0 written · 2 bad input · 3 float32 missed its gate, nothing was written
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Of the command line, without the program's name.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    quiet.prepare_environment()
    try:
        with quiet.side_file(verbose=options.verbose) as errors:
            return _run(options, errors)
    except BrokenPipeError:
        return 1


def _run(options: argparse.Namespace, errors: IO[str]) -> int:
    try:
        exit_code: int = options.command(options)
    except GateFailed as error:
        print(f"error: {error}", file=errors)
        return 3
    except ExportError as error:
        print(f"error: {error}", file=errors)
        return 2
    except ValidationError as error:
        first = error.errors()[0]
        print(f"error: {'.'.join(map(str, first['loc']))}: {first['msg']}, received {first['input']!r}", file=errors)
        return 2
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        print(f"error: {error.filename or 'write'}: {error.strerror}", file=errors)
        return 2
    return exit_code


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Trained runs to verified bundles.", epilog=EXAMPLES, formatter_class=raw
    )
    commands = parser.add_subparsers(required=True, metavar="create | list | show")
    create = commands.add_parser(
        "create", help="convert, quantize, verify and write a bundle", epilog=EXAMPLES, formatter_class=raw
    )
    create.add_argument("--name", required=True, help="the model's name")
    create.add_argument("--run", default="latest", help="a run's number (default: latest)")
    _add_settings(create, ExportSettings)
    _add_settings(create.add_argument_group("gates", _first_line(Gates)), Gates)
    create.set_defaults(command=_create)
    listing = commands.add_parser("list", help="every bundle")
    listing.set_defaults(command=_list)
    show = commands.add_parser("show", help="one bundle")
    show.add_argument("name", help="the model's name")
    show.add_argument("--version", default="latest", help="(default: latest)")
    show.set_defaults(command=_show)
    for command in (listing, show):
        command.add_argument("--models", default=argparse.SUPPRESS, help="folder of bundles (default: models)")
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (create, listing, show):
        command.add_argument("--verbose", action="store_true", help="leave what the libraries print on the terminal")
    return parser


def _first_line(settings: type[BaseSettings]) -> str:
    return (settings.__doc__ or "").partition("\n")[0]


def _add_settings(parser: Any, settings: type[BaseSettings]) -> None:
    for name, field in settings.model_fields.items():
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        help_text = f"{field.description} (default: {default})".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=argparse.SUPPRESS, help=help_text)


def _given(settings: type[Settings], options: argparse.Namespace) -> Settings:
    return settings(**{name: value for name, value in vars(options).items() if name in settings.model_fields})


def _checked_name(name: str) -> str:
    if not re.match(NAME_PATTERN, name):
        raise ExportError(f"expected a name of letters, digits, '.', '_' and '-', received {name!r}")
    return name


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415 - `--help` needs none

    # Outside a terminal, in a log or a pipe, nothing tells the width: wide enough for every table.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _create(options: argparse.Namespace) -> int:
    name = _checked_name(options.name)
    settings, gates = _given(ExportSettings, options), _given(Gates, options)
    from export import pipeline, report  # noqa: PLC0415 - onnx takes a second

    console = _console()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    result = pipeline.create(name, options.run, settings, gates, say)
    console.print(report.variants_table(result.manifest, result.report))
    say(f"wrote {result.folder} in {result.duration_s:.1f} s; serve it: make serve MODELS={settings.models}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from google.protobuf import json_format  # noqa: PLC0415

    from export import bundle, report  # noqa: PLC0415

    models = _given(ExportSettings, options).models
    found = [
        bundle.read_manifest(models / name / str(version))
        for name in bundle.names(models)
        for version in bundle.versions(models, name)
    ]
    if options.json:
        for manifest in found:
            print(json_format.MessageToJson(manifest, preserving_proto_field_name=True, indent=None))
    elif found:
        _console().print(report.bundles_table(found))
    else:
        print(f"no bundle in {models}; make one: python -m export create --name NAME")
    return 0


def _show(options: argparse.Namespace) -> int:
    from export import bundle, report  # noqa: PLC0415

    models = _given(ExportSettings, options).models
    known = bundle.versions(models, _checked_name(options.name))
    if not known:
        raise ExportError(f"expected a model out of {bundle.names(models)} in {models}, received {options.name!r}")
    wanted = str(known[-1]) if options.version == "latest" else options.version
    if wanted not in map(str, known):
        raise ExportError(f"expected version latest or one of {known} of {options.name}, received {wanted!r}")
    folder = models / options.name / wanted
    manifest = bundle.read_manifest(folder)
    if options.json:
        print(bundle.manifest_json(manifest).decode(), end="")
        return 0
    console = _console()
    console.print(report.facts_table(manifest, folder))
    console.print(report.variants_table(manifest, bundle.read_report(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
