"""A project of docker-compose.yml for as long as a `with` block lasts: its own ports, volumes, keys and certificate."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
AUDIENCE: Final = "shoal-docker-test"


def run(command: Sequence[str], *, variables: Mapping[str, str] | None = None, limit_s: float = 1800) -> str:
    """Runs a command of Docker's and returns what it printed.

    Raises:
        RuntimeError: It ended with another code than 0; its output is in the message.
    """
    done = subprocess.run(
        command, env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False, timeout=limit_s
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return done.stdout


@dataclass(frozen=True)
class Stack:
    """A running project.

    Args:
        project: Its name, which all its containers, volumes and networks begin with.
        folder: Where its secrets and its .env are.
        https_port: The proxy's port for HTTP.
        grpc_port: The proxy's port for gRPC.
    """

    project: str
    folder: Path
    https_port: int
    grpc_port: int

    @property
    def certificate(self) -> Path:
        """What clients trust."""
        return self.folder / "secrets/proxy/tls.crt"

    @property
    def jwt_key(self) -> str:
        """What tokens are signed with."""
        return (self.folder / "secrets/serve/jwt.key").read_text().strip()

    @property
    def _compose(self) -> list[str]:
        files = ["--project-directory", str(ROOT), "-f", str(ROOT / "docker-compose.yml")]
        profiles = [word for name in ("jobs", "proxy", "next") for word in ("--profile", name)]
        return [*_compose(), *files, "-p", self.project, *profiles]

    def compose(self, *arguments: str) -> str:
        """Runs docker-compose, or Compose v2, on this project."""
        return run([*self._compose, "--env-file", str(self.folder / "env"), *arguments])

    def blue_green(self, tag: str, bearer: str, smoke: str) -> str:
        """Runs deploy/blue-green.sh on this project."""
        token_file = self.folder / "token"
        token_file.write_text(bearer)
        variables = {
            "COMPOSE": " ".join(self._compose),
            "ENV_FILE": str(self.folder / "env"),
            "PROXY_URL": f"https://localhost:{self.https_port}",
            "PROXY_CA": str(self.certificate),
            "PYTHON": sys.executable,
            "SMOKE_ARGS": f"--token-file {token_file} --seconds 3 {smoke}",
        }
        return run([str(ROOT / "deploy/blue-green.sh"), tag], variables=variables)

    def job(self, service: str, *command: str) -> str:
        """Runs a job's container to its end."""
        return self.compose("run", "--rm", service, *command)

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return self.compose("ps", "-q", service).split()


@contextmanager
def stack(folder: Path, variables: Mapping[str, str]) -> Iterator[Stack]:
    """A project with nothing started yet; at the end its containers, networks and volumes are removed.

    Args:
        folder: An empty folder for its secrets.
        variables: What its .env holds beyond ports and secrets.
    """
    made = Stack(f"shoal-test-{secrets.token_hex(3)}", folder, *_free_ports(2))
    run([str(ROOT / "deploy/secrets.sh"), "localhost", str(folder / "secrets")])
    env = {
        "SECRETS": str(folder / "secrets"),
        "TAG": "docker-test",
        "SERVE_HTTP_PORT": "0",
        "SERVE_GRPC_PORT": "0",
        "PROXY_ADDRESS": "127.0.0.1",
        "PROXY_HTTPS_PORT": str(made.https_port),
        "PROXY_GRPC_PORT": str(made.grpc_port),
        "SHOAL_JWT_KEY_FILE": "/run/secrets/jwt.key",
        "SHOAL_JWT_AUDIENCE": AUDIENCE,
        **variables,
    }
    (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    try:
        yield made
    except BaseException:
        print(made.compose("logs", "--no-color", "--tail", "40"), file=sys.stderr)  # noqa: T201
        raise
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")


def wait_until(what: str, holds: Callable[[], bool], limit_s: float = 120) -> float:
    """Asks again and again, and returns after how many seconds it held.

    Raises:
        TimeoutError: It did not hold in time.
    """
    began_s = time.monotonic()
    while not holds():
        if time.monotonic() - began_s > limit_s:
            raise TimeoutError(f"expected within {limit_s:.0f} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began_s


def _compose() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise RuntimeError("expected `docker compose` or `docker-compose`, found neither: install Docker's Compose plugin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
