"""`python -m benchmarks locust`: a server, 100 locust users by HTTP, then 100 by gRPC; exit code 1 past the budget.

`--protocols mixed` has half of the users ask by HTTP while the others ask by gRPC.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine, spell_command
from benchmarks.pictures import newest_bundle
from benchmarks.server_process import Address, serve

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
USERS = {"http": ("HttpUser",), "grpc": ("GrpcUser",), "mixed": ("HttpUser", "GrpcUser")}
EXAMPLES = """\
examples:
  python -m benchmarks locust --users 100 --seconds 30
  python -m benchmarks locust --protocols mixed --users 500 --seconds 60 --out locust-500.json
  python -m benchmarks locust --protocols mixed --users 500 --pause-ms 200     users who look at what they got
"""
COLUMNS = ("Request Count", "Failure Count", "Requests/s", "50%", "95%", "99%", "Max Response Time")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles (default: models)")
    parser.add_argument("--model", default="", help="which model; default: the first by name")
    parser.add_argument("--users", type=int, default=100, help="concurrent users (default: 100)")
    parser.add_argument("--seconds", type=int, default=30, help="length of each of the two runs (default: 30)")
    parser.add_argument("--protocols", default="http,grpc", help="of http, grpc and mixed, by commas (http,grpc)")
    parser.add_argument("--pause-ms", type=int, default=0, help="what a user waits after an answer (default: 0)")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    parser.add_argument("--server-args", default="", help="further flags for the server, in one string")


def run_command(arguments: argparse.Namespace) -> int:
    """Runs both kinds of users against a server of its own.

    Args:
        arguments: As declared by `add_arguments`.

    Returns:
        0 when no request failed and every p99 is below 200 ms, else 1.
    """
    unknown = set(arguments.protocols.split(",")) - set(USERS)
    if unknown:
        raise ValueError(f"--protocols: expected some of {', '.join(USERS)}; received {', '.join(sorted(unknown))}")
    bundle = newest_bundle(arguments.models, arguments.model)
    rows, codes = [], []
    with serve(arguments.models, arguments.server_args.split()) as address:
        for protocol in arguments.protocols.split(","):
            code, found = _swarm(protocol, bundle, address, arguments)
            codes.append(code)
            rows += found
    _show(rows)
    if arguments.out:
        result = {"machine": describe_machine(), "command": spell_command(), "bundle": bundle.name, "rows": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(codes))


def swarm_command(
    protocol: str, models: Path, model: str, address: Address, users: int, seconds: int, folder: str
) -> tuple[list[str], dict[str, str]]:
    """The command that runs locust, and its environment.

    Args:
        protocol: "http", "grpc" or "mixed".
        models: Folder of bundles, for pictures to send.
        model: Which model.
        address: The server.
        users: How many, all from the start.
        seconds: How long.
        folder: Where its statistics go; `read_rows` reads them.
    """
    environment = {"SHOAL_BENCH_MODELS": str(models), "SHOAL_BENCH_MODEL": model, "SHOAL_BENCH_GRPC": address.grpc}
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *USERS[protocol], "--headless", "--only-summary"]
    command += ["-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--host", address.http]
    command += ["--csv", f"{folder}/stats", "--loglevel", "WARNING", "--reset-stats"]
    return command, os.environ | environment


def read_rows(protocol: str, folder: str) -> list[dict[str, Any]]:
    """One row for each kind of request of a run.

    Args:
        protocol: What the rows say.
        folder: Where the run's statistics are.
    """
    with Path(folder, "stats_stats.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] != "Aggregated"]
    return [{"protocol": protocol, "name": row["Name"]} | _numbers(row) for row in rows]


def _swarm(
    protocol: str, bundle: Path, address: Address, arguments: argparse.Namespace
) -> tuple[int, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        command, environment = swarm_command(
            protocol, arguments.models, bundle.parent.name, address, arguments.users, arguments.seconds, folder
        )
        environment["SHOAL_BENCH_PAUSE_MS"] = str(arguments.pause_ms)
        finished = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE, text=True)
        if finished.returncode:
            print(finished.stdout[-4000:])
        return finished.returncode, read_rows(protocol, folder)


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {column: round(float(row[column]), 1) for column in COLUMNS}


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("protocol", "request", "count", "failed", "per s", "p50 ms", "p95 ms", "p99 ms", "max ms")
    for row in rows:
        table.add_row(row["protocol"], row["name"], *(f"{row[column]:,.0f}" for column in COLUMNS))
    Console().print(table)
