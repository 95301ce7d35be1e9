"""`python -m benchmarks retrain`: `make export` beside a server under locust; nothing may fail.

make train export ──rename──▶ <models>/<name>/2 ──each worker──▶ the last answer by version 1
                                 └────────────────── this long ──────────────────┘

Without --runs the embedded digits are trained first. With it, the newest run there is exported again.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.locust_run import read_rows, swarm_command
from benchmarks.resilience import Verdict, add_common_arguments, copied, finish, run
from benchmarks.server_process import Address, serve
from benchmarks.version_watch import open_watchers, settled_after_s, watch_change

WITHIN_S: Final = 5.0
LONGEST_S: Final = 900
ALONE_S: Final = 3.0  # of load on the new version alone, before the end
EXAMPLES: Final = """\
examples:
  python -m benchmarks retrain                                          trains and exports the digits
  python -m benchmarks retrain --models M --model cifar10 --runs runs   exports the newest run of cifar10
"""


@dataclass(frozen=True, slots=True)
class _Work:
    """What is made while the server is under load.

    Args:
        name: Of the model.
        models: Folder of bundles, version 1 in it.
        make: The command that adds version 2.
    """

    name: str
    models: Path
    make: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.set_defaults(model="digits")
    parser.add_argument("--runs", type=Path, help="folder of runs: the model's newest is exported, nothing is trained")
    parser.add_argument("--users", type=int, default=20, help="locust users (default: 20)")
    parser.add_argument("--epochs", type=int, default=3, help="of the new training (default: 3)")


def run_command(arguments: argparse.Namespace) -> int:
    """Adds version 2 while version 1 is under load; see the module."""
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as folder, copied(arguments.models, arguments.model) as (models, _):
        work = _Work(arguments.model, models, _command(arguments, models, Path(folder)))
        with serve(models, arguments.server_args.split()) as address:
            with _under_load(work, address, arguments.users, folder):
                run(_measure(address, work, verdict))
            rows = read_rows("http", folder)
    verdict.figures["rows"] = rows
    verdict.require("requests", sum(row["Request Count"] for row in rows), 100, at_least=True)
    verdict.require("failed requests", sum(row["Failure Count"] for row in rows), 0)
    return finish(arguments, verdict)


def _command(arguments: argparse.Namespace, models: Path, folder: Path) -> tuple[str, ...]:
    make = ("make", f"VENV={sys.prefix}", f"NAME={arguments.model}", f"MODELS={models}")
    if arguments.runs:
        return (*make, "export", f"RUNS={arguments.runs}")
    return (*make, "train", "export", "DATA=digits", f"RUNS={folder / 'runs'}", f"EPOCHS={arguments.epochs}")


@contextlib.contextmanager
def _under_load(work: _Work, address: Address, users: int, folder: str) -> Iterator[None]:
    command, environment = swarm_command("http", work.models, work.name, address, users, LONGEST_S, folder)
    load = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        load.terminate()
        load.wait(60)


async def _measure(address: Address, work: _Work, verdict: Verdict) -> None:
    seen = await watch_change(await open_watchers(address), work.name, 2, _make(work))
    renamed_s = (work.models / work.name / "2").stat().st_ctime  # nothing is written into it after the rename
    first_s = min(at_s for at_s, version in seen if version == 2) - renamed_s  # noqa: PLR2004 - the new one
    verdict.figures["first answer by the new version, s"] = round(first_s, 3)
    verdict.require("new version answers in every worker, s", round(settled_after_s(seen, 2, renamed_s), 3), WITHIN_S)
    await asyncio.sleep(ALONE_S)


async def _make(work: _Work) -> None:
    await asyncio.to_thread(subprocess.run, work.make, check=True)
