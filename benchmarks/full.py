"""`python -m benchmarks full`: every figure of docs/performance.md, one command after the other, each result at once.

A step whose result is in `--folder` already is not repeated, so the same command goes on where it was cut off.
`--accept` copies the results to benchmarks/results and renders the document.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import render

RESULTS: Final = Path("benchmarks/results")
EXAMPLES: Final = """\
examples:
  python -m benchmarks full --list                           the steps, and how long each takes
  python -m benchmarks full --models models --photos data/photos
  python -m benchmarks full --only limit,peers,poisson       some of them
  python -m benchmarks full --quick                          each in seconds: does everything run here?
  python -m benchmarks full --accept                         what is measured goes into the repository and its documents
"""


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: Also of its result.
        minutes: About how long it takes.
        command: Of `python -m benchmarks`.
        flags: In full.
        quick: With `--quick`, in place of `flags`.
        photos: Whether it needs `--photos`, and no `--models`.
    """

    name: str
    minutes: int
    command: str
    flags: str = ""
    quick: str = ""
    photos: bool = False


BRIEF: Final = "--rounds 1 --seconds 0.5"
MIXED: Final = "--protocols mixed"
LONG: Final = "--parts requests"
STEPS: Final = (
    Step("limit", 3, "limit", "", BRIEF),
    Step("peak", 3, "peak", "", BRIEF),
    Step("stages", 1, "stages", "", BRIEF),
    Step("idle", 1, "idle"),
    Step("half-load", 2, "half-load", "", BRIEF),
    Step("poisson", 8, "poisson", "", f"{BRIEF} --steps 2 --bounds-ms 200"),
    Step("overload", 2, "overload", "", "--seconds 3"),
    Step("footprint", 2, "footprint", "", f"{BRIEF} --starts 1"),
    Step("peers", 45, "peers", "--resume", f"{BRIEF} --connections 8 --peers fastapi --columns binary"),
    Step("photos", 10, "photos", "", f"{BRIEF} --no-mosec", photos=True),
    Step("growth", 4, "growth", "", f"{BRIEF} --parts connections,models --loaded 1,2 --connections 1,8"),
    Step("locust", 1, "locust", "--users 100", "--users 4 --seconds 2"),
    Step("locust-500", 2, "locust", f"{MIXED} --users 500 --seconds 60", f"{MIXED} --users 4 --seconds 2"),
    Step("requests", 25, "growth", f"{LONG} --requests 10000000", f"{LONG} --requests 500 --slice-s 0.5"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles (default: models)")
    parser.add_argument("--photos", type=Path, help="folder of JPEG files; without it the step photos is left out")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-full"), help="where results go (%(default)s)")
    parser.add_argument("--only", default="", help=f"some of {', '.join(step.name for step in STEPS)}, by commas")
    parser.add_argument("--fresh", action="store_true", help="measure what is measured already, too")
    parser.add_argument("--quick", action="store_true", help="everything in seconds, to see that it runs")
    parser.add_argument("--list", action="store_true", help="show the steps and stop")
    parser.add_argument(
        "--accept", action="store_true", help="copy the results and render the document; measure nothing"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Makes every step; see the module.

    Returns:
        1 where a step failed or missed a bound.
    """
    steps = chosen(arguments.only, photos=arguments.photos is not None)
    if arguments.list:
        print(
            "\n".join(f"{step.name:<12} {step.minutes:>3} min   {' '.join(_words(step, arguments))}" for step in steps)
        )
        return 0
    if arguments.accept:
        return accept(arguments.folder, [step.name for step in steps])
    arguments.folder.mkdir(parents=True, exist_ok=True)
    codes = {step.name: _make(step, arguments) for step in steps}
    print("\n".join(f"{name:<12} {'ok' if code == 0 else f'code {code}'}" for name, code in codes.items()))
    return int(any(codes.values()))


def chosen(only: str, *, photos: bool) -> list[Step]:
    """The steps to make.

    Args:
        only: Their names, by commas; empty for all.
        photos: Whether there are photographs.

    Raises:
        ValueError: There is no such step.
    """
    names = only.split(",") if only else [step.name for step in STEPS if photos or not step.photos]
    unknown = set(names) - {step.name for step in STEPS}
    if unknown:
        known = ", ".join(step.name for step in STEPS)
        raise ValueError(f"--only: expected some of {known}; received {', '.join(sorted(unknown))}")
    return [step for step in STEPS if step.name in names]


def accept(folder: Path, names: list[str]) -> int:
    """Copies results into the repository, and renders them.

    Raises:
        FileNotFoundError: Nothing was measured.
    """
    found = [folder / f"{name}.json" for name in names if (folder / f"{name}.json").exists()]
    if not found:
        raise FileNotFoundError(f"expected results in {folder}, found none: run python -m benchmarks full first")
    for path in found:
        shutil.copy(path, RESULTS / path.name)
        print(f"accepted: {RESULTS / path.name}")
    render.write(render.DOCUMENTS, RESULTS)
    return 0


def _words(step: Step, arguments: argparse.Namespace) -> list[str]:
    words = [
        sys.executable,
        "-m",
        "benchmarks",
        step.command,
        *shlex.split(step.quick if arguments.quick else step.flags),
    ]
    words += ["--photos", str(arguments.photos)] if step.photos else ["--models", str(arguments.models)]
    return [*words, "--out", str(arguments.folder / f"{step.name}.json")]


def _make(step: Step, arguments: argparse.Namespace) -> int:
    done = arguments.folder / f"{step.name}.done"
    if done.exists() and not arguments.fresh:
        print(f"{step.name}: measured already ({done})")
        return int(done.read_text())
    command, started_s = _words(step, arguments), time.monotonic()
    print(f"{step.name}: {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command[1:]], check=False).returncode
    if code in (0, 1):  # 1: measured, and a bound was missed; anything else is to be tried again
        done.write_text(f"{code}\n")
    print(f"{step.name}: {time.monotonic() - started_s:.0f} s, code {code}", flush=True)
    return code
