"""`python -m export create`."""

import argparse
from typing import Any, Final

from export import console
from export.commands.shared import add_command, add_settings, checked_name, first_line, given
from export.settings import ExportSettings, Gates

EXAMPLES: Final = """\
  python -m export create --name digits                     the latest run of runs/digits becomes the next version
  python -m export create --name cifar10 --run 3            a certain run
  python -m export create --name cifar10 --variants float32 no quantization
  python -m export create --name cifar10 --variants float32,int8,float16
  python -m export create --name cifar10 --min-agreement 0.99 --max-accuracy-drop 0.002 --min-speedup 2
  python -m export create --name cifar10 --sign-key release.key
"""


def add(commands: Any) -> None:
    """Adds `create` to the parser."""
    command = add_command(commands, "create", "convert, quantize, verify and write a bundle", examples=EXAMPLES)
    command.add_argument("--name", required=True, help="the model's name")
    command.add_argument("--run", default="latest", help="a run's number (default: latest)")
    shown = [name for name in ExportSettings.model_fields if name != "trusted_keys"]
    add_settings(command, ExportSettings, *shown)
    add_settings(command.add_argument_group("gates", first_line(Gates)), Gates)
    command.set_defaults(command=_create)


def _create(options: argparse.Namespace) -> int:
    name = checked_name(options.name)
    settings, gates = given(ExportSettings, options), given(Gates, options)
    from export import pipeline, report  # noqa: PLC0415 - onnx takes a second

    result = pipeline.create(name, options.run, settings, gates, console.say)
    console.show(report.variants_table(result.manifest, result.report))
    console.say(f"wrote {result.folder} in {result.duration_s:.1f} s; serve it: make serve MODELS={settings.models}")
    return 0
