"""What a server says when it is up: to the person who started it, and to the program that waits for its ports."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is being served.

    Args:
        version: Shoal's own.
        served: Models with their versions, in words.
        has_example: Whether the default model has an example picture to try.
    """

    version: str
    served: str
    has_example: bool


def announce(settings: Settings, what: Announcement, http_port: int, grpc_port: int) -> None:
    """Prints what to open and a line to paste, and writes the ports file where one is asked for.

    Args:
        settings: Where it listens.
        what: What it serves.
        http_port: Where HTTP answers.
        grpc_port: Where gRPC answers.
    """
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host  # noqa: S104  compared, not bound
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{http_port}"
    lines = [
        "",
        f"  Shoal {what.version} serves {what.served}",
        "",
        f"  open   {address}/",
        f"  gRPC   {host}:{grpc_port}",
        f"  try    {_spell_try(address, has_example=what.has_example)}",
        "",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201  this is for the person at the terminal
    if settings.ports_file is not None:
        _write_ports(settings.ports_file, {"http": http_port, "grpc": grpc_port, "pid": os.getpid()})


def _spell_try(address: str, *, has_example: bool) -> str:
    if has_example:
        return f"curl -s {address}/example | curl -F file=@- {address}/predict"
    return f"curl {address}/model-info"


def _write_ports(path: Path, ports: dict[str, int]) -> None:
    # Renamed into place, so that whoever waits for the file never reads half of it.
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(ports) + "\n")
    partial.replace(path)
