"""`python -m export cost`."""

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any, Final

from export import console
from export.commands.shared import add_command, add_settings, given
from export.errors import ExportError
from export.settings import ExportSettings

_STANDARD_INPUT: Final = Path("-")
EXAMPLES: Final = """\
  python -m export cost --model runs/digits/1/model.keras
  python -m export cost --model candidate.keras --json      untrained weights will do
  ls *.keras | python -m export cost --model -              many, without loading the libraries for each
"""


def add(commands: Any) -> None:
    """Adds `cost` to the parser."""
    command = add_command(commands, "cost", "time a Keras model in int8 and float32, with no data", examples=EXAMPLES)
    text = "a .keras file; -: one in each line of standard input, answered by a line of JSON"
    command.add_argument("--model", metavar="FILE", required=True, type=Path, help=text)
    command.add_argument("--json", action="store_true", help="print JSON")
    add_settings(command, ExportSettings, "opset")
    command.set_defaults(command=_cost)


def _cost(options: argparse.Namespace) -> int:
    from export import cost  # noqa: PLC0415 - onnx takes a second

    opset = given(ExportSettings, options).opset
    if options.model == _STANDARD_INPUT:
        return _many(opset)
    measured = cost.measure(options.model, opset=opset)
    if options.json:
        console.say_json(measured.record())
        return 0
    console.say(f"int8     {measured.us_per_image:8.1f} µs per image ({measured.recipe})")
    console.say(f"float32  {measured.float32_us_per_image:8.1f} µs per image")
    return 0


def _many(opset: int) -> int:
    """Measures the files of standard input until it ends; what cannot be measured is answered with its `error`."""
    from export import cost  # noqa: PLC0415 - onnx takes a second

    for line in sys.stdin:
        try:
            answer = cost.measure(Path(line.rstrip("\n")), opset=opset).record()
        except ExportError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        cost.forget()
        gc.collect()
    return 0
