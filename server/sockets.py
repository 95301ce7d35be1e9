"""Sockets to listen on, and clear words where one is not to be had."""

import socket

from server.errors import StartupError


def bind(host: str, port: int, *, flag: str) -> socket.socket:
    """A TCP socket bound to an address, not yet listening. Nobody else can listen there from now on, nor share it.

    Args:
        host: A name or address.
        port: 0 lets the system choose one.
        flag: What the user would change if the port is taken.

    Raises:
        StartupError: The address does not exist here, is taken, or needs rights that are missing.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartupError(
            f"--host: expected an address of this machine, received {host!r}: {error.strerror}"
        ) from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise StartupError(
            f"{flag}: expected a free port on {host}, received {port}: {error.strerror}; choose another, or 0 for any"
        ) from error
    return bound


def reserve_shared(host: str, port: int, *, flag: str) -> socket.socket:
    """A socket that keeps a port for several processes to listen on together (SO_REUSEPORT); it never listens itself.

    Args:
        host: A name or address.
        port: 0 lets the system choose one.
        flag: What the user would change if the port is taken.

    Raises:
        StartupError: As `bind`; another program that shares the port counts as taken too.
    """
    with bind(host, port, flag=flag) as free:
        family, address = free.family, free.getsockname()
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return reserved
