"""Other servers as processes: `python -m benchmarks peers` starts each with the settings here, and stops it again."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.processes import family

READY_WITHIN_S: Final = 60.0
PYTHON: Final = Path(".venv-peers/bin/python")
ROUTE: Final = "/inference"


@dataclass(frozen=True)
class Peer:
    """How one is started.

    Args:
        name: For the table.
        command: Its arguments behind Python's; `{port}` stands for the port.
        environment: Further variables.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


# Two settings of mosec, since each is the better one somewhere: large batches for many clients, small ones for few.
PEERS: Final = (
    Peer(
        "mosec, 32 in 2 ms",
        ["-m", "benchmarks.peers.mosec_server", "--port", "{port}", "--timeout", "30000"],
        {"PEER_BATCH": "32", "PEER_WAIT_MS": "2"},
    ),
    Peer(
        "mosec, 8 in 2 ms",
        ["-m", "benchmarks.peers.mosec_server", "--port", "{port}", "--timeout", "30000"],
        {"PEER_BATCH": "8", "PEER_WAIT_MS": "2"},
    ),
    Peer(
        "FastAPI",
        [
            *("-m", "uvicorn", "benchmarks.peers.fastapi_server:app", "--port", "{port}"),
            *("--workers", str(len(os.sched_getaffinity(0))), "--no-access-log", "--log-level", "warning"),
        ],
    ),
)


@contextlib.contextmanager
def serve_peer(peer: Peer, graph: Path, log: Path) -> Iterator[tuple[str, int]]:
    """Starts a peer on a free port and stops it again.

    Args:
        peer: Which.
        graph: The ONNX file that it serves.
        log: Where its output goes.

    Yields:
        Its base URL and its process.

    Raises:
        FileNotFoundError: The peers' environment is missing.
        RuntimeError: It was not ready in time.
    """
    if not PYTHON.exists():
        raise FileNotFoundError(f"expected the peers' environment at {PYTHON.parent.parent}: run make bench-peers")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(PYTHON), *(word.format(port=port) for word in peer.command)]
    environment = os.environ | peer.environment | {"PEER_GRAPH": str(graph.resolve())}
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=output)
    try:
        _wait_until_it_listens(port, process, log)
        yield f"http://127.0.0.1:{port}{ROUTE}", process.pid
    finally:
        _stop(process)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_s = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"a peer was not ready within {READY_WITHIN_S:.0f} s:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends it and everything it started, by force where asking takes too long."""
    started = family(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for member in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    process.wait()
