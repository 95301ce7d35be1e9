"""Who speaks HTTP/2 for gRPC's servicers: grpcio's own server, or one in Rust that costs a call a fifth of it.

    servicers ──▶ grpcio          everything: TLS, streams both ways
              └─▶ pygrpc-native   unary calls and answers in streams; the rest it hands to a grpcio server behind it

Both serve the same servicers and are held to the same tests.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, Final, Literal

import grpc

from server.errors import StartupError
from server.settings import GrpcHost

NATIVE: Final = "pygrpc_native"


def make_server(host: GrpcHost, *, secure: bool = False, **options: Any) -> grpc.aio.Server:
    """Makes a server that has no servicers and no port yet.

    Args:
        host: "grpcio", "native", or "auto": native where it is installed and can serve.
        secure: Whether the port will speak TLS, which native cannot.
        options: As for `grpc.aio.server`.

    Raises:
        StartupError: "native" is asked for, and it is not installed or cannot do what is wanted.
    """
    if choose_host(host, secure=secure) == "grpcio":
        return grpc.aio.server(**options)
    # A worker has one core: a second thread that speaks HTTP/2 only takes turns with the first.
    server: grpc.aio.Server = importlib.import_module(f"{NATIVE}.aio").Server(**options, io_threads=1)
    return server


def choose_host(host: GrpcHost, *, secure: bool) -> Literal["grpcio", "native"]:
    """Which one serves.

    Args:
        host: What is asked for.
        secure: Whether the port will speak TLS.

    Raises:
        StartupError: See `make_server`.
    """
    faults = list(_faults(secure=secure))
    if host == "native" and faults:
        raise StartupError(f"expected to serve gRPC by {NATIVE}, but {faults[0]}; or choose --grpc-host grpcio")
    return "grpcio" if host == "grpcio" or faults else "native"


def may_push_back(context: object) -> bool:
    """Whether a refusal may say when to come again, by gRPC's own `grpc-retry-pushback-ms`.

    pygrpc-native 0.5 takes every name of that kind for reserved, and a call that is refused with one never ends.

    Args:
        context: A call's.
    """
    return not type(context).__module__.startswith(NATIVE)


def _faults(*, secure: bool) -> Sequence[str]:
    """Why native cannot serve, each with what to do."""
    found = []
    if importlib.util.find_spec(NATIVE) is None:
        found.append("it is not installed: pip install shoal[native]")
    if secure:
        found.append("it has no TLS yet: leave out --tls-cert, and let a proxy speak it")
    return found
