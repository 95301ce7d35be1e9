"""A real PostgreSQL of one's own: a cluster in a temporary folder, reached by its socket, that can be restarted."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

USER: Final = "shoal"
_LIMIT_S: Final = 120


@dataclass(frozen=True)
class Postgres:
    """A cluster.

    Args:
        folder: Where its data and its socket are.
        pg_ctl: The program that starts and stops it.
    """

    folder: Path
    pg_ctl: str

    @property
    def url(self) -> str:
        """Of its only database."""
        return f"postgresql://{USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        # A socket in the folder and no port at all: nothing else can be in its way.
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stops it as a crash would: connections break, nothing is said."""
        self._run("-m", "immediate", "stop")

    def _run(self, *words: str) -> None:
        _run(self.folder, self.pg_ctl, "-D", str(self.folder / "data"), *words)


def find_program(name: str) -> str | None:
    """Where one of PostgreSQL's programs is; None where it is not installed.

    Args:
        name: Such as `initdb`.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    """A fresh cluster for as long as the context lasts.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    if initdb is None or pg_ctl is None:
        raise FileNotFoundError("expected PostgreSQL's initdb and pg_ctl; install the package postgresql")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        if who := _unprivileged():
            os.chown(folder, who["user"], who["group"])
        folder.chmod(0o755)  # the server that is tested is somebody else
        options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        _run(folder, initdb, "-D", str(folder / "data"), *options)
        postgres = Postgres(folder, pg_ctl)
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()


def _run(folder: Path, *words: str) -> None:
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=_LIMIT_S, **_unprivileged())


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
