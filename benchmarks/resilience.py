"""What a server does when the world is unkind: overload, reloads, stops and crashes, each with figures that can fail.

    python -m benchmarks overload | reloads | stops | crashes | idle | balance

Every command starts a server of its own, sends load only to it, prints one line per figure with its bound, writes the
whole result as JSON, and ends with code 1 when a bound is missed.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.http_load import Question, closed_loop, connect, post
from benchmarks.machine import describe_machine, spell_command
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.server_process import Address

Figures = dict[str, Any]


@dataclass
class Verdict:
    """What was measured, and whether each bound held.

    Args:
        figures: Everything measured.
        missed: The bounds that did not hold.
    """

    figures: Figures = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def require(self, what: str, value: float, bound: float, *, at_least: bool = False) -> None:
        """Prints a figure beside its bound, and remembers whether it held."""
        held = value >= bound if at_least else value <= bound
        print(f"{'ok    ' if held else 'MISSED'}  {what}: {value:g} (bound: {'≥' if at_least else '≤'} {bound:g})")
        self.figures.setdefault("figures", {})[what] = {"value": value, "bound": bound, "held": held}
        if not held:
            self.missed.append(what)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that all commands of this kind share."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles (default: models)")
    parser.add_argument("--model", default="", help="which model; default: the first by name")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    parser.add_argument("--server-args", default="", help="further flags for the server, in one string")


def finish(arguments: argparse.Namespace, verdict: Verdict) -> int:
    """Writes the result; the exit code is 1 when a bound was missed."""
    save(arguments, verdict)
    return int(bool(verdict.missed))


def save(arguments: argparse.Namespace, verdict: Verdict) -> None:
    """Writes what is measured so far, so that a run that is cut off leaves something."""
    result = {"machine": describe_machine(), "command": spell_command()}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result | verdict.figures, indent=1) + "\n")


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs load on uvloop."""
    uvloop.run(work)


@contextlib.contextmanager
def copied(models: Path, name: str) -> Any:
    """A models folder of its own that holds the newest bundle of one model as version 1.

    Yields:
        The folder, and a function that adds the same bundle as another version, as export would: by rename.
    """
    source = newest_bundle(models, name)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / source.parent.name

        def add(version: int) -> None:
            hidden = home / f".{version}.partial"
            shutil.copytree(source, hidden)
            manifest = json.loads((hidden / "manifest.json").read_text())
            (hidden / "manifest.json").write_text(json.dumps(manifest | {"version": str(version)}))
            hidden.rename(home / str(version))

        home.mkdir()
        add(1)
        yield Path(folder), add


async def questions(address: Address, models: Path, name: str, headers: tuple[str, ...] = ()) -> list[Question]:
    """The golden pictures as uploads, each with the answer that an idle server gives to it.

    Args:
        address: The server.
        models: Folder of bundles.
        name: Which model.
        headers: Further header lines for each.
    """
    pictures = golden_pictures(newest_bundle(models, name))
    url = f"{address.http}/predict/{pictures.model}"
    asked, connection = [], await connect(url)
    for file in pictures.files:
        question = post(url, file, "application/octet-stream", headers=headers)
        status, body = await connection.ask_nowait(question.request)
        if status != 200:  # noqa: PLR2004
            raise RuntimeError(f"an idle server answered {status}: {body.decode()}")
        right = b'"predictions":' + orjson.dumps(orjson.loads(body)["predictions"])
        asked.append(Question(question.request, right))
    connection.close()
    return asked


async def peak_per_s(address: Address, asked: list[Question], *, seconds: float, connections: int = 64) -> float:
    """Right answers in a second at most, by a closed loop."""
    tally = await closed_loop(address.http, asked, connections=connections, seconds=seconds)
    return float(tally.summary()["good_per_s"])


@contextlib.asynccontextmanager
async def watching(sample: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    """Calls a function regularly while a block runs."""

    async def watch() -> None:
        while True:
            sample()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
