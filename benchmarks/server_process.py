"""A real server in a process of its own, on free ports, for as long as a `with` block lasts."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

READY_WITHIN_S: Final = 60.0
_of_server: Final[ContextVar[frozenset[int]]] = ContextVar("cores of the server", default=frozenset())


@dataclass(frozen=True)
class Address:
    """Where a server answers.

    Args:
        http: Base URL, such as `http://127.0.0.1:8000`.
        grpc: gRPC target, such as `127.0.0.1:8001`.
        pid: The server's process.
    """

    http: str
    grpc: str
    pid: int


@contextmanager
def serve(
    models: Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Address]:
    """Starts `python -m server` on free ports and stops it again by SIGTERM.

    Args:
        models: Folder of bundles.
        arguments: Further flags for the server.
        environment: Further variables for it.

    Yields:
        Where it answers, once it is ready.

    Raises:
        RuntimeError: The server ended before it was ready, was not ready in time, or did not stop cleanly.
    """
    with tempfile.TemporaryDirectory() as folder:
        ports_file = Path(folder) / "ports.json"
        command = [sys.executable, "-m", "server", "--models", str(models), "--http-port", "0", "--grpc-port", "0"]
        command += ["--ports-file", str(ports_file), *arguments]
        log_file = Path(folder) / "server.log"
        with (
            log_file.open("wb") as log,
            _start(command, log, environment) as process,
        ):
            try:
                yield _wait_ready(process, ports_file, log_file)
            finally:
                process.terminate()
                code = process.wait(READY_WITHIN_S)
        if code != 0:
            raise RuntimeError(f"the server stopped with code {code}:\n{log_file.read_text()}")


@contextmanager
def generator_apart() -> Iterator[int]:
    """Gives this process the last core for itself; what `serve` starts inside the block gets all others.

    A generator that shares the server's cores takes more of them the more it sends, which looks like a server that
    slows down under overload.

    Yields:
        How many cores are left for the server.

    Raises:
        RuntimeError: There is only one core.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        raise RuntimeError("expected a core for the load generator and one for the server, received one in all")
    others = _of_server.set(frozenset(cores[:-1]))
    os.sched_setaffinity(0, cores[-1:])
    try:
        yield len(cores) - 1
    finally:
        os.sched_setaffinity(0, cores)
        _of_server.reset(others)


def server_cores() -> list[int]:
    """The cores that a server started now would have."""
    return sorted(_of_server.get() or os.sched_getaffinity(0))


def _start(
    command: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process on the server's cores: it inherits those of the thread that starts it."""
    mine, cores = os.sched_getaffinity(0), _of_server.get()
    os.sched_setaffinity(0, cores or mine)
    try:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
    finally:
        os.sched_setaffinity(0, mine)


def _wait_ready(process: subprocess.Popen[bytes], ports_file: Path, log_file: Path) -> Address:
    end_s = time.monotonic() + READY_WITHIN_S
    while not ports_file.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}:\n{log_file.read_text()}")
        if time.monotonic() > end_s:
            raise RuntimeError(f"the server was not ready within {READY_WITHIN_S:.0f} s:\n{log_file.read_text()}")
        time.sleep(0.02)
    ports = json.loads(ports_file.read_text())
    return Address(f"http://127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['grpc']}", process.pid)
