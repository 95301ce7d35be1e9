"""The command line: `train`, `evaluate` and `list`.

TensorFlow takes seconds to import, so a command's own module is imported when it runs: `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from training import console, models, runs
from training.data.loading import load
from training.errors import TrainingError
from training.quiet import quiet_import
from training.settings import TrainSettings

_TRAIN_EXAMPLES: Final = """\
  python -m training train                                 the embedded digits, about 15 seconds
  python -m training train --data photos --name photos     your own: photos/train/cat/1.jpg, photos/test/cat/2.jpg, …
  python -m training train --data photos --epochs 3 --fraction 0.1     a quick trial on a tenth of it
  python -m training train --set dropout=0.3 --set 'filters=[32,64]'   another shape of the model
"""
_EXAMPLES: Final = f"""\
examples:
{_TRAIN_EXAMPLES}\
  python -m training evaluate photos                       the latest run of that name
  python -m training list
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser; the flags of `train` come from `TrainSettings`."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Trains an image classifier from labelled pictures and keeps every run in a folder of its own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    _add_list(commands)
    return top


def run(arguments: Sequence[str]) -> None:
    """Runs one command.

    Args:
        arguments: As on the command line, less the program.

    Raises:
        TrainingError: The user's input is not usable.
        SystemExit: The words are no command (code 2), or help was asked for (code 0).
    """
    parsed = parser().parse_args(arguments)
    parsed.command(parsed)


def _add_train(commands: Any) -> None:
    listed = "\n".join(f"  {name:<8} {summary}" for name, summary in models.MODELS.items())
    command = commands.add_parser(
        "train",
        help="train a model and write a run folder",
        description="Trains a model and writes the run folder <runs>/<name>/<number>.",
        epilog=f"models:\n{listed}\n\nexamples:\n{_TRAIN_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in TrainSettings.model_fields.items():
        _add_flag(command, name, field)
    command.set_defaults(command=_train)


def _add_flag(command: argparse.ArgumentParser, name: str, field: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    default = field.default
    text = field.description if default in ("", "auto") else f"{field.description} (default: {default})"
    if field.annotation is bool:
        command.add_argument(flag, action="store_true", default=None, help=field.description)
    elif name == "set":
        command.add_argument(flag, action="append", metavar="KEY=VALUE", help=field.description)
    else:
        choices = [str(choice) for choice in get_args(field.annotation)]
        command.add_argument(flag, metavar="|".join(choices) or name.rsplit("_", 1)[-1].upper(), help=text)


def _train(parsed: argparse.Namespace) -> None:
    values = {key: value for key in TrainSettings.model_fields if (value := getattr(parsed, key)) is not None}
    if "set" in values:
        values["set"] = _pairs(values["set"])
    settings = TrainSettings.parse(values)
    models.check(settings.model)
    data = load(settings)  # first, so that what is wrong with the data is said before TensorFlow's seconds
    with quiet_import():
        from training.train import train  # noqa: PLC0415 (see the module's head)

    finished = train(settings, data)
    _tell(finished, finished.metrics())
    console.say(f"run    {finished.path}")


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise TrainingError(f"--set: expected KEY=VALUE; received '{text}'")
    return dict(text.split("=", 1) for text in texts)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure a finished run again",
        description="Measures a run on its held-out rows, prints the result, and rewrites metrics.json and figures/.",
    )
    command.add_argument("run", metavar="RUN", help="a run folder, a name (its latest run), or NAME/NUMBER")
    _add_runs(command)
    command.set_defaults(command=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> None:
    finished = runs.resolve(parsed.runs, parsed.run)
    with quiet_import():
        from training.evaluate import evaluate  # noqa: PLC0415 (see the module's head)

    measured = evaluate(finished)
    _tell(finished, measured)
    console.say(f"       {'class':<20} precision  recall      F1    rows")
    for line in measured["test"]["classes"]:
        console.say(
            f"       {line['label']:<20} {line['precision']:>9.4f} {line['recall']:>7.4f} {line['f1']:>7.4f}"
            f" {line['rows']:>7,}"
        )


def _add_list(commands: Any) -> None:
    command = commands.add_parser("list", help="list the finished runs", description="Lists the finished runs.")
    _add_runs(command)
    command.set_defaults(command=_list)


def _list(parsed: argparse.Namespace) -> None:
    found = runs.every(parsed.runs)
    if not found:
        console.say(f"no runs in {parsed.runs} yet; make one with `python -m training train`")
        return
    console.say(f"{'run':<24} {'model':<8} {'accuracy':>8} {'parameters':>11}  {'epochs':>6}  created")
    for one in found:
        record = one.record
        console.say(
            f"{one.name + '/' + str(one.number):<24} {record['model']:<8} {one.metrics()['test']['accuracy']:>8.4f}"
            f" {record['parameters']:>11,}  {record['epochs']:>6}  {record['created_at']}"
        )


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs (default: runs)")


def _tell(run: runs.Run, measured: dict[str, Any]) -> None:
    test, validation = measured["test"], measured["validation"]
    console.say(
        f"test   accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}, macro F1 {test['macro']['f1']:.4f}"
        f" on {test['rows']:,} rows (validation accuracy {validation['accuracy']:.4f});"
        f" {run.record['parameters']:,} parameters"
    )
