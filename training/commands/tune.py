"""`python -m training tune`."""

import argparse
from typing import Any, Final

from training import console
from training.commands.shared import add_flag, pairs, tell
from training.settings import TrainSettings
from training.tuning.settings import NO_FLAGS, TuneSettings

EXAMPLES: Final = """\
  python -m training tune                                  the embedded digits, 24 short trainings, the 3 best in full
  python -m training tune --data photos --workers 2 --minutes 60       an hour's search; the same command goes on
  python -m training tune --max-us-per-image 120           only what answers within 120 µs in int8 on one thread
  python -m training tune --sampler random --space my.yaml --best 0    another sampler, another space, only search
"""


def add(commands: Any) -> None:
    """Adds `tune` to the parser."""
    command = commands.add_parser(
        "tune",
        help="search for better settings by many short trainings, then train the best in full",
        description="Searches a space of settings, goes on with a search that was cut off, trains the best in full and"
        " writes the run folder of the best. Results are in <runs>/tuning/<study>.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    search: Any = command.add_argument_group("search")
    for name, field in TuneSettings.model_fields.items():
        add_flag(search, name, field)
    training: Any = command.add_argument_group("what holds for all trainings, less what the space decides")
    for name, field in TrainSettings.model_fields.items():
        if name not in NO_FLAGS:
            add_flag(training, name, field)
    command.set_defaults(command=_tune)


def _tune(parsed: argparse.Namespace) -> None:
    from training.tuning.tune import tune  # noqa: PLC0415 (Optuna, which the other commands need not)

    given = {key: value for key, value in vars(parsed).items() if value is not None}
    tuning = TuneSettings.parse({key: given[key] for key in TuneSettings.model_fields if key in given})
    values = {key: given[key] for key in TrainSettings.model_fields if key in given and key not in NO_FLAGS}
    if "set" in values:
        values["set"] = pairs(values["set"])
    tuned = tune(TrainSettings.parse(values), tuning)
    if tuned.run is not None:
        tell(tuned.run, tuned.run.metrics())
        console.say(f"run    {tuned.run.path}")
    console.say(f"search {tuned.results}")
