"""`python -m training compare`."""

import argparse
from pathlib import Path
from typing import Any, Final

from training import console, contenders
from training.commands.shared import add_flag, pairs
from training.errors import TrainingError
from training.quiet import quiet_import
from training.settings import TrainSettings

EXAMPLES: Final = """\
  python -m training compare --models cnn,mlp --seeds 3
  python -m training compare --models cnn cnn:learning_rate=0.003,set.dropout=0 --epochs 5
"""


def add(commands: Any) -> None:
    """Adds `compare` to the parser."""
    command = commands.add_parser(
        "compare",
        help="train several models on the same data, and compare them",
        description="Trains several models, or one with several recipes, on the same data, budget and seeds. Runs that"
        " are finished already are reused, so an interrupted comparison goes on where it was.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL[:SETTING=VALUE,…]", help="gains count from the first"
    )
    command.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds 0, 1, … (default: 1)")
    command.add_argument("--minutes", type=float, help="time for each training, instead of --epochs, by a short trial")
    command.add_argument("--out", metavar="FOLDER", type=Path, help="default: <runs>/comparisons/<name>")
    for name, field in TrainSettings.model_fields.items():
        if name not in ("model", "seed"):
            add_flag(command, name, field)
    command.set_defaults(command=_compare)


def _compare(parsed: argparse.Namespace) -> None:
    if parsed.seeds < 1:
        raise TrainingError(f"--seeds: expected at least 1; received '{parsed.seeds}'")
    if parsed.minutes is not None and (parsed.epochs is not None or not parsed.minutes > 0):
        raise TrainingError(f"--minutes: expected more than 0, and no --epochs beside it; received '{parsed.minutes}'")
    given = {key: getattr(parsed, key, None) for key in TrainSettings.model_fields}
    shared: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if "set" in shared:
        shared["set"] = pairs(shared["set"])
    chosen = contenders.parse(parsed.models)
    settings = [one.settings(shared, seed=0) for one in chosen]  # refused before TensorFlow's seconds
    with quiet_import():
        from training import compare, comparison_files  # noqa: PLC0415 (see the package's head)

    if parsed.out:  # the default is below --runs, which training checks
        comparison_files.check(parsed.out)
    comparison = compare.compare(chosen, shared, range(parsed.seeds), parsed.minutes)
    folder = parsed.out or settings[0].runs / "comparisons" / settings[0].run_name
    comparison_files.write(folder, comparison)
    for line in comparison_files.console_lines(comparison):
        console.say(line)
    console.say(f"comparison.json, comparison.md and comparison.png in {folder}")
