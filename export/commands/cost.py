"""`python -m export cost`."""

import argparse
from pathlib import Path
from typing import Any, Final

from export import console
from export.commands.shared import add_command, add_settings, given
from export.settings import ExportSettings

EXAMPLES: Final = """\
  python -m export cost --model runs/digits/1/model.keras
  python -m export cost --model candidate.keras --json      untrained weights will do
"""


def add(commands: Any) -> None:
    """Adds `cost` to the parser."""
    command = add_command(commands, "cost", "time a Keras model in int8 and float32, with no data", examples=EXAMPLES)
    command.add_argument("--model", metavar="FILE", required=True, type=Path, help="a .keras file")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_settings(command, ExportSettings, "opset")
    command.set_defaults(command=_cost)


def _cost(options: argparse.Namespace) -> int:
    from export import cost  # noqa: PLC0415 - onnx takes a second

    measured = cost.measure(options.model, opset=given(ExportSettings, options).opset)
    if options.json:
        console.say_json(measured.record())
        return 0
    console.say(f"int8     {measured.us_per_image:8.1f} µs per image ({measured.recipe})")
    console.say(f"float32  {measured.float32_us_per_image:8.1f} µs per image")
    return 0
