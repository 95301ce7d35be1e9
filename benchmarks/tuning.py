"""Searches by a swarm and at random at one budget, then trains the best of each and the default in full, seed by seed.

Each step is one of Shoal's own commands, so this script goes on where it was when it is run again.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_RESULTS: Final = Path("benchmarks/results/tuning.json")
_STRENGTH: Final = "augment."
_USUAL_FLIP: Final = "flip"

EXAMPLES: Final = """\
examples:
  python -m benchmarks.tuning --data cifar10                           24 trials of each sampler, then 3 seeds
  python -m benchmarks.tuning --data cifar10 --max-us-per-image 60     with a limit on the cost of an answer
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--data", required=True, help="as for `python -m training train`")
    parser.add_argument("--runs", default="runs/tuning-benchmark", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=24, help="of each sampler (default: %(default)s)")
    parser.add_argument("--fraction", type=float, default=0.3, help="of the data, in a trial (default: %(default)s)")
    parser.add_argument("--proxy-epochs", type=int, default=3, help="of a trial (default: %(default)s)")
    parser.add_argument("--best", type=int, default=3, help="trials trained in full (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="of a training in full (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings in full (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--mixed-precision", default="bfloat16", help="(default: %(default)s)")
    parser.add_argument("--max-us-per-image", type=float, default=0.0, help="0: no limit (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=_RESULTS, metavar="FILE", help="JSON (default: %(default)s)")


def run_command(options: argparse.Namespace) -> int:
    """Measures, and writes the results.

    Args:
        options: See `add_arguments`.

    Returns:
        The exit code.
    """
    searches = {sampler: _searched(options, sampler) for sampler in ("pso", "random")}
    contenders = ["cnn", *dict.fromkeys(_contender(found) for found in searches.values())]
    compared = Path(options.runs) / "comparison"
    _training(
        "compare", "--models", *contenders, "--seeds", str(options.seeds), "--epochs", str(options.epochs),
        "--out", str(compared), *_shared(options),
    )  # fmt: skip
    comparison = json.loads((compared / "comparison.json").read_text())
    results = {
        "schema": 1,
        "settings": {name: value for name, value in vars(options).items() if isinstance(value, int | float)},
        "data": comparison["data"],
        "searches": {sampler: _summary(found) for sampler, found in searches.items()},
        "contenders": [
            {key: line[key] for key in ("name", "accuracy", "points_gained", "parameters", "epochs", "training_s")}
            for line in comparison["contenders"]
        ],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["searches"], indent=1))
    return 0


def _searched(options: argparse.Namespace, sampler: str) -> dict[str, Any]:
    """Searches, and trains the best three in full to choose one by validation."""
    study = f"cnn-{sampler}" + (f"-{options.max_us_per_image:g}us" if options.max_us_per_image else "")
    _training(
        "tune", "--sampler", sampler, "--study", study, "--name", study, "--trials", str(options.trials),
        "--fraction", str(options.fraction), "--proxy-epochs", str(options.proxy_epochs), "--best", str(options.best),
        "--epochs", str(options.epochs), "--workers", str(options.workers),
        "--max-us-per-image", str(options.max_us_per_image), *_shared(options),
    )  # fmt: skip
    found: dict[str, Any] = json.loads(
        (Path(options.runs) / "tuning" / study / "optimization_results.json").read_text()
    )
    return found


def _shared(options: argparse.Namespace) -> list[str]:
    return ["--data", options.data, "--runs", options.runs, "--mixed-precision", options.mixed_precision]


def _training(*words: str) -> None:
    command = [sys.executable, "-m", "training", *words]
    print("$", shlex.join(command), flush=True)
    subprocess.run(command, check=True)


def _contender(found: dict[str, Any]) -> str:
    """Writes the chosen trial as `compare` reads it."""
    chosen = found["finals"][0]["trial"]
    values = next(trial["parameters"] for trial in found["trials"] if trial["number"] == chosen)
    lists: dict[str, list[Any]] = {}
    words = []
    strengths = [_USUAL_FLIP]
    for name, value in values.items():
        setting, _, index = name.removeprefix("set.").partition(".")
        if name.startswith(_STRENGTH):
            strengths += [f"{name.removeprefix(_STRENGTH)}={value:g}"] if value else []
        elif index:
            lists.setdefault(setting, []).append(value)
        else:
            words.append(f"{name}={value}")
    words += [f"set.{setting}={json.dumps(elements, separators=(',', ':'))}" for setting, elements in lists.items()]
    return f"cnn:{','.join(words)},augment={','.join(strengths)}"


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("counts", "best", "importance", "pareto", "finals")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        arguments: The command line; the process's own by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run_command(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
