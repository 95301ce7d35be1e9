"""What a server says when it is up: to the person who started it, and to the program that waits for its ports."""

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is being served.

    Args:
        version: Shoal's own.
        served: Models with their versions, in words; empty where none is loaded yet.
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
    address = f"{'http' if settings.tls_cert is None else 'https'}://{host}:{http_port}"
    lines = [
        "",
        f"  Shoal {what.version} serves {what.served or 'no model yet'}",
        "",
        f"  open   {address}/",
        f"  gRPC   {host}:{grpc_port}",
        f"  try    {_spell_try(address, what)}",
        "",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201  this is for the person at the terminal
    _warn_if_open(settings)
    if settings.ports_file is not None:
        _write_ports(settings.ports_file, {"http": http_port, "grpc": grpc_port, "pid": os.getpid()})


def _warn_if_open(settings: Settings) -> None:
    """Says so where everybody who reaches this machine may do everything."""
    closed = settings.api_keys or settings.jwt_key_file or settings.jwks or settings.tls_client_ca
    if not closed and not _is_loopback(settings.host):
        log.warning(
            "whoever reaches this address may use and change everything: no authentication is set up",
            host=settings.host,
            settings="--api-keys, --jwks, --jwt-key-file, --tls-client-ca",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def _spell_try(address: str, what: Announcement) -> str:
    if not what.served:
        return f"curl -X POST {address}/v2/repository/models/NAME/load"
    if what.has_example:
        return f"curl -s {address}/example | curl -F file=@- {address}/predict"
    return f"curl {address}/model-info"


def _write_ports(path: Path, ports: dict[str, int]) -> None:
    # Renamed into place, so that whoever waits for the file never reads half of it.
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(ports) + "\n")
    partial.replace(path)
