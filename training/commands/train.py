"""`python -m training train`."""

import argparse
from typing import Any, Final

from training import console, models
from training.commands.shared import add_flag, pairs, tell
from training.data.loading import load
from training.quiet import quiet_import
from training.settings import TrainSettings

EXAMPLES: Final = """\
  python -m training train                                 the embedded digits, about 15 seconds
  python -m training train --data photos --name photos     your own: photos/train/cat/1.jpg, photos/test/cat/2.jpg, …
  python -m training train --data photos --epochs 3 --fraction 0.1     a quick trial on a tenth of it
  python -m training train --set dropout=0.3 --set 'filters=[32,64]'   another shape of the model
  python -m training train --optimizer sgd --schedule one-cycle --augment flip,crop,cutout=8   another recipe
The same command again continues a training that was cut off; --fresh starts over.
"""


def add(commands: Any) -> None:
    """Adds `train` to the parser."""
    listed = "\n".join(f"  {name:<8} {summary}" for name, summary in models.MODELS.items())
    command = commands.add_parser(
        "train",
        help="train a model and write a run folder",
        description="Trains a model and writes the run folder <runs>/<name>/<number>.",
        epilog=f"models:\n{listed}\n\nexamples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in TrainSettings.model_fields.items():
        add_flag(command, name, field)
    command.set_defaults(command=_train)


def _train(parsed: argparse.Namespace) -> None:
    values = {key: value for key in TrainSettings.model_fields if (value := getattr(parsed, key)) is not None}
    if "set" in values:
        values["set"] = pairs(values["set"])
    settings = TrainSettings.parse(values)
    models.check(settings.model)
    data = load(settings)  # first, so that what is wrong with the data is said before TensorFlow's seconds
    with quiet_import():
        from training.train import train  # noqa: PLC0415 (see the module's head)

    finished = train(settings, data)
    tell(finished, finished.metrics())
    console.say(f"run    {finished.path}")
