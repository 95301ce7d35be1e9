"""Compares the particle swarm with random search, TPE and nevergrad's ConfPSO at small budgets."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rich.progress import track

from benchmarks.pso_functions import CONSTRAINED, REPORTED, TUNING, Problem
from benchmarks.pso_report import draw, summarise, table
from benchmarks.pso_samplers import BUDGETS, IN_FLIGHT, REFUSED, SAMPLERS, pso_settings, search

_SUITES: Final = {"reported": REPORTED, "tuning": TUNING, "constrained": CONSTRAINED}
_TUNING_SEED: Final = 1000  # the reported functions have seeds from 0
_FRIEDMAN_SAMPLERS: Final = 3  # the test takes no fewer
_SAVE_EVERY: Final = 20  # searches, some ten seconds

EXAMPLES: Final = """\
examples:
  python -m benchmarks.pso                            30 seeds of 12 problems, some ten minutes on one core
  python -m benchmarks.pso --seeds 2 --samplers random,tpe,pso --results quick.json --figure quick.png
  python -m benchmarks.pso --suite tuning             the problems by which the defaults were chosen
  python -m benchmarks.pso --suite constrained --samplers random,tpe,pso \\
      --results benchmarks/results/pso-constrained.json --figure docs/figures/pso-constrained.svg
                                                      under a limit that few random points keep

Run it again after an interruption: finished searches are kept in the results file. Sampler `confpso-8` needs
`pip install nevergrad`; leave it out with --samplers random,tpe,pso.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing, then writes the results, the figure and the table.

    Args:
        arguments: The command line; the process's own by default.
    """
    options = _parser().parse_args(arguments)
    try:
        results = _loaded(options)
        _run_missing(options, results)
    except ValueError as error:
        print(f"benchmarks.pso: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from {options.results}", file=sys.stderr)
        return 130
    chosen = options.samplers.split(",")
    values = {problem: {name: found[name] for name in chosen} for problem, found in results["values"].items()}
    results["summary"] = summarise(values, BUDGETS)
    _save(options.results, results)
    draw(results["summary"], options.figure)
    print(table(results["summary"]))
    print(f"wrote {options.results} and {options.figure}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pso",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=30, help="functions per problem (default: 30)")
    parser.add_argument("--suite", choices=tuple(_SUITES), default="reported", help="which problems")
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help=f"some of {','.join(SAMPLERS)} (default: all)")
    results = Path("benchmarks/results/pso-suite.json")
    parser.add_argument("--results", type=Path, default=results, metavar="FILE", help=f"JSON (default: {results})")
    figure = Path("docs/figures/pso-suite.svg")
    parser.add_argument("--figure", type=Path, default=figure, metavar="FILE", help=f"SVG or PNG (default: {figure})")
    return parser


def _loaded(options: argparse.Namespace) -> dict[str, Any]:
    """The results so far, or new ones.

    Raises:
        ValueError: An option is wrong, or the file holds results of other settings.
    """
    samplers = options.samplers.split(",")
    if unknown := [name for name in samplers if name not in SAMPLERS]:
        raise ValueError(f"expected samplers out of {', '.join(SAMPLERS)}, received {', '.join(unknown)}")
    if "pso" not in samplers or len(samplers) < _FRIEDMAN_SAMPLERS:
        raise ValueError(f"expected pso and at least two other samplers, received {options.samplers}")
    if "confpso-8" in samplers and options.suite == "constrained":
        raise ValueError("confpso-8 knows no constraints: leave it out with --samplers random,tpe,pso")
    if "confpso-8" in samplers and find_spec("nevergrad") is None:
        raise ValueError("confpso-8 needs nevergrad: pip install nevergrad, or leave it out of --samplers")
    if options.seeds < 1:
        raise ValueError(f"expected at least one seed, received {options.seeds}")
    settings = {"suite": options.suite, "budgets": list(BUDGETS), "in_flight": IN_FLIGHT, "pso": pso_settings()}
    if options.suite == "constrained":
        settings["refused"] = REFUSED
    if not options.results.exists():
        return {"schema": 1, "settings": settings, "machine": _machine(), "values": {}}
    results: dict[str, Any] = json.loads(options.results.read_text())
    if results["settings"] != settings:
        raise ValueError(f"{options.results} holds results of other settings: move it away, or give another --results")
    return results


def _run_missing(options: argparse.Namespace, results: dict[str, Any]) -> None:
    samplers = options.samplers.split(",")
    missing = list(_missing(options, samplers, results["values"]))
    for done, (problem, sampler, seed) in enumerate(track(missing, description="searches")):
        found = search(sampler, problem.member(seed), seed)
        results["values"][problem.name].setdefault(sampler, {})[str(seed)] = found
        if done % _SAVE_EVERY == 0:
            _save(options.results, results)


def _missing(
    options: argparse.Namespace, samplers: list[str], values: dict[str, Any]
) -> Iterator[tuple[Problem, str, int]]:
    first = _TUNING_SEED if options.suite == "tuning" else 0
    for seed in range(first, first + options.seeds):
        for problem in _SUITES[options.suite]:
            done = values.setdefault(problem.name, {})
            yield from ((problem, sampler, seed) for sampler in samplers if str(seed) not in done.get(sampler, {}))


def _save(file: Path, results: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(file)


def _machine() -> dict[str, str | int]:
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "optuna", "scipy")}
    if find_spec("nevergrad") is not None:
        versions["nevergrad"] = importlib.metadata.version("nevergrad")
    return {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), **versions}


if __name__ == "__main__":
    sys.exit(main())
