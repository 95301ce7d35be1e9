"""Runs `python -m server` as users do: a process of its own, on free ports, ended by a signal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

ROOT = Path(__file__).parents[2]
START_LIMIT_S = 60
STOP_LIMIT_S = 30


@dataclass
class ServerProcess:
    """A running server."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(STOP_LIMIT_S)

    def channel(self, **options: int) -> grpc.Channel:
        return grpc.insecure_channel(self.grpc_address, options=list(options.items()))


@contextmanager
def run_server(models: Path, folder: Path, *flags: str) -> Iterator[ServerProcess]:
    """A server of `models` in one process for as long as the context lasts; files of its own go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ports_file, log_file = folder / "ports.json", folder / "log"
    command = [sys.executable, "-m", "server", "--models", str(models), "--http-port", "0", "--grpc-port", "0"]
    command += ["--ports-file", str(ports_file), "--workers", "1", *flags]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={"SHOAL_GRPC_HOST": "grpcio"} | os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        ports = _wait_for_ports(process, ports_file, log_file)
        yield ServerProcess(process, ports["http"], ports["grpc"], log_file)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT_S)
            finally:
                process.kill()
                process.wait()


def _wait_for_ports(process: subprocess.Popen[bytes], ports_file: Path, log_file: Path) -> dict[str, int]:
    give_up_s = time.monotonic() + START_LIMIT_S
    while not ports_file.exists():
        if process.poll() is not None or time.monotonic() > give_up_s:
            raise RuntimeError(f"the server did not start (exit code {process.poll()}):\n{log_file.read_text()}")
        time.sleep(0.02)
    ports: dict[str, int] = json.loads(ports_file.read_text())
    return ports


def run_to_end(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m server` with these flags until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "server", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        env=os.environ | environment,
        check=False,
    )
