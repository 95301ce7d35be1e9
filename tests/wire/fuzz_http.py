"""Asks a real server whatever its OpenAPI document allows, and forbids: `python -m tests.wire.fuzz_http --help`.

/openapi.json ──▶ schemathesis: right and wrong requests ──▶ server ──▶ no 5xx, and each answer as the document has it
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.wire.bundles import write_bundle
from tests.wire.server_process import ROOT, run_server

HERE: Final = Path(__file__).parent
LIMITS: Final = ("--max-body-bytes", "200000", "--max-image-pixels", "1000000", "--latency-budget-ms", "5000")
# Loading by request is part of the document; `spare` is what may be loaded and unloaded.
CONTROL: Final = ("--model-control", "explicit", "--preload", "grey,rgb")
PHASES: Final = "examples,coverage,fuzzing"
RELOADS: Final = "/v2/repository/models/.*load$"


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Args:
        cases: Requests made and looked at.
        operations: Methods of paths that they went to.
        right: Whether every one of them was answered as the document has it.
        words: What schemathesis said.
    """

    cases: int
    operations: int
    right: bool
    words: str


def fuzz(
    url: str, folder: Path, *, examples: int, seed: int, phases: str = PHASES, paths: tuple[str, ...] = ()
) -> Outcome:
    """Runs schemathesis against a server.

    Args:
        url: The server's.
        folder: For reports.
        examples: Random requests for each operation at most, besides those that walk along every bound.
        seed: Of what is random.
        phases: Schemathesis's, joined by commas.
        paths: Further arguments, which choose among the operations.
    """
    folder.mkdir(exist_ok=True)
    report = folder / "report.json"
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.wire.fuzz_hooks", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "fuzz_http.toml"), "run"]
    command += [f"{url}/openapi.json", "--max-examples", str(examples), "--seed", str(seed), "--phases", phases]
    command += ["--no-color", "--continue-on-failure", "--generation-database", "none", "--warnings", "off"]
    command += ["--report", "json", "--report-json-path", str(report), *paths]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    words = done.stdout + done.stderr
    if not report.exists():
        return Outcome(0, 0, right=False, words=words)
    found = json.loads(report.read_text())
    right = done.returncode == 0 and not found["failures"] and not found["errors"]
    return Outcome(found["test_cases"]["generated"], found["operations"]["tested"], right, words)


def write_models(models: Path) -> None:
    """Writes the bundles that the configuration names."""
    write_bundle(models, "grey", 1, explained=True)
    write_bundle(models, "rgb", 1, height=32, width=32, channels=3)
    write_bundle(models, "spare", 1)


def fuzz_with_many(url: str, folder: Path, *, examples: int, seed: int, jobs: int) -> list[Outcome]:
    """Runs schemathesis several times at once: the first walks along every bound too, the others are random alone.

    Loading and unloading follow by themselves: beside others they rightly cause 503.

    Args:
        url: The server's.
        folder: For reports.
        examples: Random requests for each operation and run at most.
        seed: Of the first run; each further one has the next number.
        jobs: How many.
    """

    def one(number: int) -> Outcome:
        phases = PHASES if number == 0 else "fuzzing"
        others = ("--exclude-path-regex", RELOADS)
        return fuzz(url, folder / str(number), examples=examples, seed=seed + number, phases=phases, paths=others)

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = [*pool.map(one, range(jobs))]
    reloads = ("--include-path-regex", RELOADS)
    return [*outcomes, fuzz(url, folder / "reloads", examples=examples, seed=seed, paths=reloads)]


def main() -> int:
    """Starts a server, runs, and tells what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="fewer requests than this are a failure")
    parser.add_argument("--examples", type=int, default=130, help="random requests for each operation and job at most")
    parser.add_argument("--jobs", type=int, default=4, help="processes that ask at the same time")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder / "models")
        with run_server(folder / "models", folder / "server", *LIMITS, *CONTROL) as server:
            outcomes = fuzz_with_many(
                server.url, folder, examples=options.examples, seed=options.seed, jobs=options.jobs
            )
    wrong = [outcome.words for outcome in outcomes if not outcome.right]
    cases = sum(outcome.cases for outcome in outcomes)
    enough = cases >= options.cases
    verdict = "see above" if wrong else "all answered as the document has it"
    few = "" if enough else f"; expected at least {options.cases:,}: raise --examples"
    sys.stdout.write("".join(wrong))
    sys.stdout.write(
        f"{cases:,} cases over {outcomes[0].operations + outcomes[-1].operations} operations: {verdict}{few}\n"
    )
    return 0 if enough and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
