"""Searches by a swarm and at random at one budget, then trains the best of each and the default in full, seed by seed.

With a limit on the cost of an answer the swarm searches once more, and its best is exported: does the bundle keep the
limit, and how much accuracy does that take? Each step is one of Shoal's own commands, so this script goes on where it
was when it is run again.
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
_DEFAULT: Final = "cnn"
_LIMITED: Final = "pso-limited"

EXAMPLES: Final = """\
examples:
  python -m benchmarks.tuning --data cifar10                           24 trials of each sampler, then 3 seeds
  python -m benchmarks.tuning --data cifar10 --max-us-per-image 30     and a search under that limit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--data", required=True, help="as for `python -m training train`")
    parser.add_argument("--runs", default="runs/tuning-benchmark", help="folder of the runs (default: %(default)s)")
    parser.add_argument(
        "--samplers", default="pso,random", help="without a limit; none leaves these out (default: %(default)s)"
    )
    parser.add_argument("--trials", type=int, default=24, help="of each sampler (default: %(default)s)")
    parser.add_argument("--fraction", type=float, default=0.3, help="of the data, in a trial (default: %(default)s)")
    parser.add_argument("--proxy-epochs", type=int, default=3, help="of a trial (default: %(default)s)")
    parser.add_argument("--best", type=int, default=3, help="trials trained in full (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="of a training in full (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings in full (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--mixed-precision", default="bfloat16", help="(default: %(default)s)")
    parser.add_argument("--max-us-per-image", type=float, default=0.0, help="of one more search by the swarm")
    parser.add_argument("--results", type=Path, default=_RESULTS, metavar="FILE", help="JSON (default: %(default)s)")


def run_command(options: argparse.Namespace) -> int:
    """Measures, and writes the results.

    Args:
        options: See `add_arguments`.

    Returns:
        The exit code.
    """
    samplers = [] if options.samplers == "none" else options.samplers.split(",")
    searches = {sampler: _searched(options, sampler) for sampler in samplers}
    if options.max_us_per_image:
        searches[_LIMITED] = _searched(options, "pso", options.max_us_per_image)
    contenders = {name: _contender(found) for name, found in searches.items()}
    comparison = _compared(options, [_DEFAULT, *dict.fromkeys(contenders.values())])
    lines = {line["name"]: _line(line) for line in comparison["contenders"]}
    results = {
        "schema": 2,
        "settings": {name: value for name, value in vars(options).items() if isinstance(value, int | float)},
        "data": comparison["data"],
        "searches": {name: _summary(found) for name, found in searches.items()},
        "contenders": {"default": lines[_DEFAULT], **{name: lines[words] for name, words in contenders.items()}},
    }
    if options.max_us_per_image:
        results["limit"] = _exported(options, searches[_LIMITED]["run"])
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["contenders"], indent=1))
    return 0


def _searched(options: argparse.Namespace, sampler: str, limit_us: float = 0.0) -> dict[str, Any]:
    """Searches, and trains the best few in full to choose one by validation."""
    study = f"cnn-{sampler}" + (f"-{limit_us:g}us" if limit_us else "")
    _run(
        "training", "tune", "--sampler", sampler, "--study", study, "--name", study, "--trials", str(options.trials),
        "--fraction", str(options.fraction), "--proxy-epochs", str(options.proxy_epochs), "--best", str(options.best),
        "--epochs", str(options.epochs), "--workers", str(options.workers), "--max-us-per-image", str(limit_us),
        *_shared(options),
    )  # fmt: skip
    return _read(Path(options.runs) / "tuning" / study / "optimization_results.json")


def _compared(options: argparse.Namespace, contenders: Sequence[str]) -> dict[str, Any]:
    folder = Path(options.runs) / "comparison"
    _run(
        "training", "compare", "--models", *contenders, "--seeds", str(options.seeds), "--epochs", str(options.epochs),
        "--out", str(folder), *_shared(options),
    )  # fmt: skip
    return _read(folder / "comparison.json")


def _exported(options: argparse.Namespace, run: str) -> dict[str, Any]:
    """Makes a bundle of a run, and tells what its manifest says of the cost of an answer."""
    name, number = run.split("/")
    models = Path(options.runs) / "models"
    versions = models / name
    if not list(versions.glob("*/manifest.json")):
        _run("export", "create", "--name", name, "--run", number, "--runs", str(options.runs), "--models", str(models))
    manifest = _read(max(versions.glob("*/manifest.json")))
    return {
        "run": run,
        "us_per_image": options.max_us_per_image,
        "parameters": int(manifest["parameters"]),
        "variants": {
            one["name"]: {"us_per_image": 1e6 / one["images_per_s"], "accuracy": one["accuracy"]}
            for one in manifest["variants"]
        },
    }


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _line(line: dict[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in ("name", "accuracy", "points_gained", "parameters", "epochs", "training_s")}


def _shared(options: argparse.Namespace) -> list[str]:
    return ["--data", options.data, "--runs", options.runs, "--mixed-precision", options.mixed_precision]


def _run(*words: str) -> None:
    command = [sys.executable, "-m", *words]
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
