"""Other servers as processes: each is started as `peers/settings.toml` says, and stopped again."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.payloads import PAYLOAD_OF, Target
from benchmarks.processes import family

READY_WITHIN_S: Final = 180.0  # Ray Serve starts a dozen processes, which takes minutes on two busy cores
SETTINGS: Final = Path(__file__).with_name("peers") / "settings.toml"
MODEL: Final = "classifier"


@dataclass(frozen=True)
class Peer:
    """How one is started; see the head of `peers/settings.toml`.

    Args:
        name: For the table.
        environment: Of its virtual environment, `.venv-<environment>`.
        package: Whose version is told.
        command: Its arguments behind Python's.
        protocol: As `payloads.Target` has it.
        columns: What it can be asked.
        variables: Further environment variables.
    """

    name: str
    environment: str
    package: str
    command: Sequence[str]
    protocol: str
    columns: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return Path(f".venv-{self.environment}/bin/python")

    @property
    def version(self) -> str:
        """Its package with its version; empty where it is not installed."""
        name = self.package.replace("-", "_")
        found = sorted(self.python.parents[1].glob(f"lib/python*/site-packages/{name}-*.dist-info"))
        return f"{self.package} {found[0].name.removesuffix('.dist-info').rsplit('-', 1)[1]}" if found else ""


def read_peers(wanted: str = "") -> list[Peer]:
    """The peers of `peers/settings.toml`.

    Args:
        wanted: Beginnings of their names, in any case, joined by commas; empty for all.

    Raises:
        ValueError: No peer's name begins so.
    """
    peers = [Peer(**entry) for entry in tomllib.loads(SETTINGS.read_text())["peer"]]
    chosen = []
    for start in filter(None, wanted.lower().split(",")):
        found = [peer for peer in peers if peer.name.lower().startswith(start.strip())]
        if not found:
            known = ", ".join(dict.fromkeys(peer.name.split(",")[0] for peer in peers))
            raise ValueError(f"--peers: expected some of {known}; received {start!r}")
        chosen += found
    return chosen if wanted else peers


@contextlib.contextmanager
def serve_peer(peer: Peer, graph: Path, column: str, variables: Mapping[str, str] | None = None) -> Iterator[Target]:
    """Starts a peer on free ports and stops it again.

    Args:
        peer: Which.
        graph: The ONNX file that it serves.
        column: What it will be asked.
        variables: Further environment variables.

    Yields:
        Where it listens; it may still be loading the model.

    Raises:
        FileNotFoundError: Its environment is missing.
        RuntimeError: It does not listen in time.
    """
    if not peer.python.exists():
        raise FileNotFoundError(f"expected {peer.name}'s environment at {peer.python.parents[1]}: run make bench-peers")
    with tempfile.TemporaryDirectory() as folder, free_ports(2) as (port, grpc_port):
        places = {"port": port, "grpc_port": grpc_port, "cores": len(os.sched_getaffinity(0))}
        words = [str(peer.python), *(word.format(**places) for word in peer.command)]
        settings = {"PEER_GRAPH": str(graph.resolve()), "PEER_PAYLOAD": PAYLOAD_OF[column], "PEER_FOLDER": folder}
        environment = os.environ | settings | dict(peer.variables) | dict(variables or {})
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(words, env=environment, stdout=output, stderr=output)
        try:
            _wait_until_it_listens(grpc_port if column == "grpc" else port, process, log)
            protocol = "msgpack" if peer.name.startswith("mosec") else peer.protocol
            yield Target(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", process.pid, protocol, MODEL)
        finally:
            _stop(process)


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        ports = [one.getsockname()[1] for one in held]
    yield ports  # closed again: whoever is started now takes them


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_s = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"it does not listen after {READY_WITHIN_S:.0f} s; its last words: {log.read_text()[-1000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends it and everything it started, by force where asking takes too long."""
    started = family(process.pid) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for member in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    process.wait()
