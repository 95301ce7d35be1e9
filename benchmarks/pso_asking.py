"""Measures how long asking for a trial takes in a study of thousands of trials on SQLite."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import optuna
from rich.progress import track

from benchmarks.pso_functions import REPORTED
from training.pso import PSOSampler
from training.pso_storage import open_storage

_PROBLEM: Final = next(problem for problem in REPORTED if problem.name == "cnn-noisy")
_STALE_EVERY: Final = (
    1000  # some workers died and left their trials running for ever; Optuna reads those again each time
)

EXAMPLES: Final = """\
examples:
  python -m benchmarks.pso_asking                     4,000 trials, then 200 timed asks: a minute or two
  python -m benchmarks.pso_asking --trials 500 --asks 50
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills a study, times asking in a new process's state of mind, writes JSON.

    Args:
        arguments: The command line; the process's own by default.
    """
    options = _parser().parse_args(arguments)
    if options.trials < 1 or options.asks < 2:  # noqa: PLR2004 - quantiles need two
        print(f"expected --trials ≥ 1 and --asks ≥ 2, received {options.trials} and {options.asks}", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'study.db'}"
        _fill(url, options.trials)
        random = _asked(url, optuna.samplers.RandomSampler(seed=1), options.asks)
        pso = _asked(url, PSOSampler(seed=1), options.asks)
    results = {
        "schema": 1,
        "trials": options.trials,
        "asks": options.asks,
        "parameters": len(_PROBLEM.kinds),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),  # above the cores, wall times include waiting for others
        "pso": pso,
        "random": random,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pso_asking",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=4000, help="trials in the study (default: 4000)")
    parser.add_argument("--asks", type=int, default=200, help="timed asks (default: 200)")
    results = Path("benchmarks/results/pso-asking.json")
    parser.add_argument("--results", type=Path, default=results, metavar="FILE", help=f"JSON (default: {results})")
    return parser


def _fill(url: str, trials: int) -> None:
    """Flies the swarm in memory, which is quick, and copies the study to the database."""
    study = optuna.create_study(sampler=PSOSampler(seed=0))
    member = _PROBLEM.member(0)
    for number in track(range(trials), description="filling the study"):
        trial = study.ask(_PROBLEM.space())
        if number % _STALE_EVERY:
            study.tell(trial, member.observed_value(trial.params, number))
    target = optuna.create_study(storage=open_storage(url), study_name="asking")
    target.add_trials(study.trials)


def _asked(url: str, sampler: optuna.samplers.BaseSampler, asks: int) -> dict[str, float]:
    """Milliseconds of an ask, its parameters included; the first ask reads the whole study."""
    study = optuna.load_study(study_name="asking", storage=open_storage(url), sampler=sampler)
    member, space = _PROBLEM.member(0), _PROBLEM.space()
    wall_ms: list[float] = []
    cpu_ms: list[float] = []
    for number in track(range(asks), description=f"asking {type(sampler).__name__}"):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        trial = study.ask(space)
        wall_ms.append((time.perf_counter() - wall_s) * 1000)
        cpu_ms.append((time.process_time() - cpu_s) * 1000)
        study.tell(trial, member.observed_value(trial.params, number))
    return {
        "first_ms": round(wall_ms[0], 1),
        "median_ms": round(median(wall_ms), 2),
        "p95_ms": round(quantiles(wall_ms, n=20)[-1], 2),
        "median_cpu_ms": round(median(cpu_ms), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
