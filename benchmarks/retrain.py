"""`python -m benchmarks retrain`: `make train export` beside a server under locust; nothing may fail."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.locust_run import read_rows, swarm_command
from benchmarks.pictures import newest_bundle
from benchmarks.resilience import Verdict, add_common_arguments, finish
from benchmarks.server_process import Address, serve

SWAP_WITHIN_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add_common_arguments(parser)
    parser.add_argument("--users", type=int, default=20, help="locust users (default: 20)")
    parser.add_argument("--epochs", type=int, default=3, help="of the new training (default: 3)")


def run_command(arguments: argparse.Namespace) -> int:
    """Trains and exports version 2 of the embedded digits while version 1 is under load; see the module."""
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as folder:
        models, runs = Path(folder) / "models", Path(folder) / "runs"
        shutil.copytree(newest_bundle(arguments.models, "digits"), models / "digits" / "1")
        with serve(models, arguments.server_args.split()) as address:
            command, environment = swarm_command("http", models, "digits", address, arguments.users, 600, folder)
            load = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            try:
                _train_and_export(runs, models, arguments.epochs)
                swapped_s = _wait_for_version(address, 2)
                time.sleep(3)  # some load on the new version alone
            finally:
                load.terminate()
                load.wait(60)
        rows = read_rows("http", folder)
    verdict.figures["rows"] = rows
    verdict.require("requests", sum(row["Request Count"] for row in rows), 100, at_least=True)
    verdict.require("failed requests", sum(row["Failure Count"] for row in rows), 0)
    verdict.require("new version answers after export, s", round(swapped_s, 2), SWAP_WITHIN_S)
    return finish(arguments, verdict)


def _train_and_export(runs: Path, models: Path, epochs: int) -> None:
    make = ["make", f"VENV={sys.prefix}", "train", "export", "DATA=digits", "NAME=digits"]
    subprocess.run([*make, f"RUNS={runs}", f"MODELS={models}", f"EPOCHS={epochs}"], check=True)


def _wait_for_version(address: Address, version: int) -> float:
    started_s = time.monotonic()
    while time.monotonic() - started_s < SWAP_WITHIN_S:
        with urllib.request.urlopen(f"{address.http}/model-info", timeout=10) as response:  # noqa: S310  our own server
            if int(json.load(response)["version"]) == version:
                return time.monotonic() - started_s
        time.sleep(0.05)
    raise RuntimeError(f"version {version} did not answer within {SWAP_WITHIN_S:.0f} s")
