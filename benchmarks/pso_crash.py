"""Kills tuning workers with SIGKILL at random moments, resumes, and counts what was lost, repeated or stuck."""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import TrialState
from rich.progress import track

from benchmarks.pso_functions import REPORTED
from training.pso import PSOSampler
from training.pso_storage import open_storage
from training.pso_swarm import FLIGHT_KEY

_PROBLEM: Final = next(problem for problem in REPORTED if problem.name == "sphere-mixed")
_STUDY: Final = "crash"
_EVALUATION_S: Final = 0.02
_READY_TIMEOUT_S: Final = 120.0

EXAMPLES: Final = """\
examples:
  python -m benchmarks.pso_crash                 50 kills of 2 workers on SQLite: some five minutes
  python -m benchmarks.pso_crash --kills 5 --storage postgresql+psycopg://me@localhost/empty
"""


@dataclass(frozen=True)
class Outcome:
    """What is left after the kills.

    Args:
        kills: Workers killed.
        told: Trials whose worker got its answer from `tell` and wrote that down.
        lost: Of those, trials that the storage does not hold complete with the same value.
        evaluated_twice: Trials, or parameter sets, that were evaluated more than once.
        abandoned: Trials that a killed worker left running.
        resumed: Trials after the last kill, by a new worker.
        resumed_flying: Of those, trials that flew on with a velocity from their own particle.
        best_before: The best value at the last kill.
        best_after: The best value at the end.
    """

    kills: int
    told: int
    lost: int
    evaluated_twice: int
    abandoned: int
    resumed: int
    resumed_flying: int
    best_before: float
    best_after: float

    def faults(self) -> list[str]:
        """What should not have happened, in words."""
        found = {
            f"{self.lost} finished trials were lost": self.lost,
            f"{self.evaluated_twice} trials were evaluated twice": self.evaluated_twice,
            f"only {self.resumed_flying} of {self.resumed} resumed trials flew": self.resumed - self.resumed_flying,
            "no trial was finished at all": self.told == 0,
            "the best value was forgotten": self.best_after > self.best_before,
        }
        return [fault for fault, happened in found.items() if happened]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the kills, or one worker of them.

    Args:
        arguments: The command line; the process's own by default.
    """
    options = _parser().parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.worker:
        work(options.storage, options.worker)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        url = options.storage or f"sqlite:///{Path(folder) / 'study.db'}"
        outcome = torture(url, Path(folder) / "journal", options.kills, options.workers, options.seed)
    results = {"schema": 1, "workers": options.workers, **asdict(outcome), "faults": outcome.faults()}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    return 1 if outcome.faults() else 0


def torture(url: str, journal: Path, kills: int, workers: int = 2, seed: int = 0, resumed: int = 30) -> Outcome:
    """Keeps workers running, kills one at a time at random moments, then goes on alone.

    Args:
        url: An empty database.
        journal: A file that the workers write down in what they did, whatever the storage says.
        kills: How often.
        workers: Processes at a time.
        seed: Of the moments and the victims.
        resumed: Trials after the last kill.
    """
    optuna.create_study(storage=open_storage(url), study_name=_STUDY)
    moments = random.Random(seed)  # noqa: S311 - no secret
    with contextlib.ExitStack() as stack:
        running = [_started(stack, url, journal) for _ in range(workers)]
        _wait_ready(journal, running)
        for _ in track(range(kills), description="kills"):
            time.sleep(moments.uniform(0.0, 1.0))
            victim = running.pop(moments.randrange(workers))
            victim.kill()
            victim.wait()
            running.append(_started(stack, url, journal))
            _wait_ready(journal, running[-1:])
    study = optuna.load_study(storage=open_storage(url), study_name=_STUDY, sampler=PSOSampler(seed=1))
    before = study.best_value
    numbers = [_evaluate(study, journal) for _ in range(resumed)]
    return _judged(study, journal, kills, before, numbers)


def work(url: str, journal: Path) -> None:
    """A worker: asks, evaluates and tells until it is killed.

    Args:
        url: The study's database.
        journal: See `torture`.
    """
    study = optuna.load_study(storage=open_storage(url), study_name=_STUDY, sampler=PSOSampler(seed=1))
    _write(journal, {"ready": os.getpid()})
    while True:
        _evaluate(study, journal)


def _evaluate(study: optuna.Study, journal: Path) -> int:
    trial = study.ask(_PROBLEM.space())
    _write(journal, {"started": trial.number, "params": trial.params})
    time.sleep(_EVALUATION_S)
    value = _PROBLEM.member(0).true_value(trial.params)
    study.tell(trial, value)
    _write(journal, {"told": trial.number, "value": value})
    return int(trial.number)


def _write(journal: Path, entry: dict[str, Any]) -> None:
    """Appends a line in one write, which SIGKILL cannot halve."""
    with journal.open("ab", buffering=0) as file:
        file.write(json.dumps(entry).encode() + b"\n")


def _read(journal: Path) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, journal.read_text().splitlines() if journal.exists() else ())


def _started(stack: contextlib.ExitStack, url: str, journal: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.pso_crash", "--storage", url, "--worker", str(journal)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _wait_ready(journal: Path, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits until workers have opened the study.

    Raises:
        RuntimeError: One ended by itself, or none got ready in time.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not {process.pid for process in processes} <= {entry.get("ready") for entry in _read(journal)}:
        if any(process.poll() is not None for process in processes) or time.monotonic() > deadline:
            raise RuntimeError("a worker ended or did not get ready: its own output says why")
        time.sleep(0.05)


def _judged(study: optuna.Study, journal: Path, kills: int, before: float, resumed: Sequence[int]) -> Outcome:
    entries = list(_read(journal))
    told = {entry["told"]: entry["value"] for entry in entries if "told" in entry}
    kept = {trial.number: trial.value for trial in study.get_trials(states=[TrialState.COMPLETE])}
    started = [entry for entry in entries if "started" in entry]
    numbers = Counter(entry["started"] for entry in started)
    places = Counter(json.dumps(entry["params"], sort_keys=True) for entry in started)
    return Outcome(
        kills=kills,
        told=len(told),
        lost=sum(kept.get(number) != value for number, value in told.items()),
        evaluated_twice=sum(count > 1 for count in [*numbers.values(), *places.values()]),
        abandoned=len(study.get_trials(states=[TrialState.RUNNING])),
        resumed=len(resumed),
        resumed_flying=sum(_flew(study, number) for number in resumed),
        best_before=before,
        best_after=study.best_value,
    )


def _flew(study: optuna.Study, number: int) -> bool:
    flight = study.trials[number].system_attrs.get(FLIGHT_KEY, {"particle": -1, "velocity": []})
    earlier = [trial.system_attrs.get(FLIGHT_KEY, {}).get("particle") for trial in study.trials[:number]]
    return flight["particle"] in earlier and any(flight["velocity"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pso_crash",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=50, help="how often (default: 50)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims (default: 0)")
    parser.add_argument("--storage", default="", metavar="URL", help="an empty database (default: SQLite, temporary)")
    results = Path("benchmarks/results/pso-crash.json")
    parser.add_argument("--results", type=Path, default=results, metavar="FILE", help=f"JSON (default: {results})")
    parser.add_argument("--worker", type=Path, metavar="JOURNAL", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
