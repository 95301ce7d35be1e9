"""`python -m server keys new NAME --scopes predict`: makes an API key."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from server.auth import SCOPES
from server.auth_keys import make_key, read_keys
from server.errors import StartupError

USAGE = "python -m server keys new NAME --scopes SCOPE,SCOPE [--file FILE]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message}; usage: {USAGE}")


def run_keys(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
        arguments: What follows `keys` on the command line.

    Raises:
        StartupError: It is called in a wrong way, or the file does not take another key.
    """
    parser = _Parser(prog="python -m server keys", usage=USAGE, description=__doc__)
    parser.add_argument("action", choices=["new"], help="make a key")
    parser.add_argument("name", help="whose it is: 1 to 64 letters, digits or ._@-")
    parser.add_argument("--scopes", default="predict", help=f"what it allows, of {', '.join(SCOPES)} [predict]")
    parser.add_argument("--file", type=Path, help="the server's --api-keys: the key's line is added to it")
    options = parser.parse_args(arguments)
    key, line = make_key(options.name, options.scopes.split(","))
    if options.file is None:
        print(f"key   {key}\nline  {line}")  # noqa: T201  it is what was asked for
        return
    _add(options.file, options.name, line)
    print(key)  # noqa: T201


def _add(path: Path, name: str, line: str) -> None:
    """Adds a line to the file, which only its owner can read where it is made now."""
    if path.exists() and any(stored.caller.name == f"key:{name}" for stored in read_keys(path)):
        raise StartupError(f"expected a new name, received {name!r}, which {path} has; take its line out first")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a") as file:
            unfinished = path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
            file.write(("\n" if unfinished else "") + line + "\n")
    except OSError as error:
        raise StartupError(f"--file: expected a file that can be written, received {path}: {error.strerror}") from error
