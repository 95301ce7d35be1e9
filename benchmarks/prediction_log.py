"""`python -m benchmarks prediction-log`: what the log costs at full load, and what stops and restarts lose.

Two servers run side by side, one with a log and one without; load goes to one of them at a time, by turns, so that
whatever else the machine does meets both. The generator has a core of its own.
"""

import argparse
import asyncio
import os
import signal
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from benchmarks.http_load import OK, Question, Tally, closed_loop
from benchmarks.postgres import Postgres, find_program, run_postgres
from benchmarks.processes import cpu_s, family
from benchmarks.resilience import Verdict, add_common_arguments, finish, questions, run
from benchmarks.server_process import Address, generator_apart, serve

LEAST_RATIO: Final = 0.97
CONNECTIONS: Final = 64
ENDLESS_S: Final = 60.0
FULL_LOAD_S: Final = 2.0
AWAY_S: Final = 2.0
WRITER: Final = b"server.predictions.writer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each server, by turns (default: 10)")
    parser.add_argument("--stops", type=int, default=3, help="stops under full load (default: 3)")
    parser.add_argument("--inputs", choices=("digest", "whole"), default="digest", help="what the log keeps of inputs")


def run_command(arguments: argparse.Namespace) -> int:
    """Measures throughput, stops and a restart of PostgreSQL; see the module."""
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as name, generator_apart():
        folder = Path(name)
        if arguments.rounds:
            with (
                serve(arguments.models, arguments.server_args.split()) as without,
                serve(arguments.models, _flags(arguments, f"sqlite:///{folder / 'throughput.db'}")) as logged,
            ):
                run(_compare(without, logged, arguments, verdict))
        for number in range(arguments.stops):
            _stop(folder / f"stop-{number}.db", arguments, verdict)
        if find_program("initdb") is None:
            print("PostgreSQL is not installed: its restart is not measured")
        else:
            with run_postgres() as postgres:
                _restart(postgres, arguments, verdict)
    return finish(arguments, verdict)


def _flags(arguments: argparse.Namespace, database: str) -> list[str]:
    return [*arguments.server_args.split(), "--prediction-log", database, "--prediction-log-inputs", arguments.inputs]


# ---- throughput ----


async def _compare(without: Address, logged: Address, arguments: argparse.Namespace, verdict: Verdict) -> None:
    asked = {address: await questions(address, arguments.models, arguments.model) for address in (without, logged)}
    for address in (without, logged):
        await _measure(address, asked[address], 1.0)
    pairs = []
    for number in range(arguments.rounds):
        # Now one first, now the other: neither is always behind what has just warmed the machine.
        order = (without, logged) if number % 2 else (logged, without)
        taken = {address: await _measure(address, asked[address], arguments.seconds) for address in order}
        pairs.append((taken[without], taken[logged]))
        ratio = taken[logged]["per_s"] / taken[without]["per_s"]
        print(f"round {number + 1:2}: {taken[without]['per_s']:,.0f} per s without, {ratio:.3f} of it with the log")
    ratios = sorted(after["per_s"] / before["per_s"] for before, after in pairs)
    verdict.figures["throughput"] = {"pairs": pairs, "ratios": ratios}
    added_us = statistics.median(after["cpu_us"] - before["cpu_us"] for before, after in pairs)
    writing_us = statistics.median(after["writer_us"] for _, after in pairs)
    print(
        f"ratio from {ratios[0]:.3f} to {ratios[-1]:.3f}; {added_us:.1f} µs of CPU time more for each request, and"
        f" {writing_us:.1f} µs that the writer found beside"
    )
    verdict.require("throughput with the log, median share", statistics.median(ratios), LEAST_RATIO, at_least=True)


async def _measure(address: Address, asked: list[Question], seconds: float) -> dict[str, float]:
    serving_s, writing_s = _cpu_s(address.pid)
    tally = await closed_loop(address.http, asked, connections=CONNECTIONS, seconds=seconds)
    served_s, wrote_s = _cpu_s(address.pid)
    summary = tally.summary()
    if set(summary["by_status"]) != {str(OK)} or summary["wrong"]:
        raise RuntimeError(f"expected right answers only, received {summary['by_status']}, {summary['wrong']} wrong")
    return {
        "per_s": summary["good_per_s"],
        "cpu_us": (served_s - serving_s) / summary["requests"] * 1e6,
        "writer_us": (wrote_s - writing_s) / summary["requests"] * 1e6,
    }


def _cpu_s(pid: int) -> tuple[float, float]:
    """CPU time of a server, and of the process that writes its log, in seconds."""
    members = family(pid)
    writers = [member for member in members if WRITER in Path(f"/proc/{member}/cmdline").read_bytes()]
    writing_s = sum(map(cpu_s, writers))
    return sum(map(cpu_s, members)) - writing_s, writing_s


# ---- stops and restarts ----


def _stop(file: Path, arguments: argparse.Namespace, verdict: Verdict) -> None:
    with serve(arguments.models, _flags(arguments, f"sqlite:///{file}")) as address:
        answered = _load(address, arguments, lambda: os.kill(address.pid, signal.SIGTERM), ENDLESS_S)
        _wait_ended(address.pid)
    with closing(sqlite3.connect(file)) as database:
        rows = int(database.execute("SELECT count(*) FROM predictions").fetchone()[0])
    print(f"stop: {answered:,} answered, {rows:,} logged")
    verdict.require("rows lost at a graceful stop", max(0, answered - rows), 0)


def _restart(postgres: Postgres, arguments: argparse.Namespace, verdict: Verdict) -> None:
    import psycopg  # noqa: PLC0415  only needed where there is a PostgreSQL

    found: dict[str, Any] = {}

    async def restart() -> None:
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(postgres.start)

    tally = Tally()
    with serve(arguments.models, _flags(arguments, postgres.url)) as address:
        answered = _load(address, arguments, restart, AWAY_S + 3 * FULL_LOAD_S, tally)
        os.kill(address.pid, signal.SIGTERM)
        _wait_ended(address.pid)
    with psycopg.connect(postgres.url) as connection:
        for name, question in (
            ("logged", "SELECT count(*) FROM predictions"),
            ("lost", "SELECT coalesce(sum(lost_rows), 0) FROM prediction_gaps"),
        ):
            row = connection.execute(question).fetchone()
            found[name] = int(row[0]) if row else 0
    found["answered"] = answered
    verdict.figures["restart"] = found
    print(f"restart of PostgreSQL: {answered:,} answered, {found['logged']:,} logged, {found['lost']:,} told as lost")
    verdict.require("requests that failed while PostgreSQL restarted", len(tally.status) - tally.status.count(OK), 0)
    verdict.require("rows neither logged nor told as lost", max(0, answered - found["logged"] - found["lost"]), 0)


def _load(
    address: Address,
    arguments: argparse.Namespace,
    meanwhile: Callable[[], Any],
    seconds: float,
    tally: Tally | None = None,
) -> int:
    """Loads a server fully, does something to it after a while, and tells how many requests were answered."""
    tally = Tally() if tally is None else tally

    async def work() -> None:
        asked = await questions(address, arguments.models, arguments.model)
        load = asyncio.create_task(
            closed_loop(address.http, asked, connections=CONNECTIONS, seconds=seconds, tally=tally)
        )
        await asyncio.sleep(FULL_LOAD_S)
        doing = meanwhile()
        if doing is not None:
            await doing
        await load

    run(work())
    return tally.status.count(OK)


def _wait_ended(pid: int) -> None:
    # Without reaping it, which `serve` does; a second signal before that would end it in the middle of its writing.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
