"""`python -m benchmarks reloads`: 100 new versions while half of what the server can do keeps coming."""

import argparse
import asyncio
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.http_load import open_loop
from benchmarks.pictures import newest_bundle
from benchmarks.processes import family_rss_bytes
from benchmarks.resilience import Verdict, add_common_arguments, copied, finish, peak_per_s, questions, run
from benchmarks.server_process import Address, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--reloads", type=int, default=100, help="how many versions appear (default: 100)")


def run_command(arguments: argparse.Namespace) -> int:
    """Adds versions one after the other under load; see the module."""
    verdict = Verdict()
    with copied(arguments.models, arguments.model) as (models, add), serve(models, arguments.server_args.split()) as at:
        run(_measure(at, models, add, arguments.reloads, verdict))
    return finish(arguments, verdict)


async def _measure(address: Address, models: Path, add: object, reloads: int, verdict: Verdict) -> None:
    assert callable(add)
    name = newest_bundle(models).parent.name
    asked = await questions(address, models, name)
    peak = await peak_per_s(address, asked, seconds=5)
    before_bytes = family_rss_bytes(address.pid)
    seen: list[float] = []
    done = asyncio.Event()

    async def reload() -> None:
        for version in range(2, reloads + 2):
            await asyncio.to_thread(add, version)
            added_s = time.monotonic()
            while await asyncio.to_thread(_version, address, name) != version:  # noqa: ASYNC110  it is another process
                await asyncio.sleep(0.02)
            seen.append(time.monotonic() - added_s)
        done.set()

    reloading = asyncio.create_task(reload())
    parts: list[dict[str, Any]] = []
    while not done.is_set() and not (reloading.done() and reloading.exception()):
        tally = await open_loop(address.http, asked, rate_per_s=peak / 2, seconds=5, seed=len(parts))
        parts.append(tally.summary())
    await reloading
    await asyncio.sleep(2)
    await peak_per_s(address, asked, seconds=5)
    ratio = family_rss_bytes(address.pid) / before_bytes
    verdict.figures |= {"peak_per_s": peak, "load": parts, "rss_before_bytes": before_bytes, "answered_after_s": seen}
    verdict.require("reloads", len(seen), reloads, at_least=True)
    verdict.require("failed requests", sum(_failed(part["by_status"]) for part in parts), 0)
    verdict.require("answers of no single version, or wrong", sum(part["wrong"] for part in parts), 0)
    verdict.require("memory after, times before", round(ratio, 3), 1.1)
    verdict.require("slowest new version to answer, s", round(max(seen), 2), 5)


def _failed(by_status: dict[str, int]) -> int:
    return sum(count for status, count in by_status.items() if status != "200")


def _version(address: Address, name: str) -> int:
    with urllib.request.urlopen(f"{address.http}/model-info?model={name}") as response:  # noqa: S310  our own server
        return int(re.sub(r"\D", "", str(json.load(response)["version"])))
