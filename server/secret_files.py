"""Files of keys and certificates, which change while the server runs.

    file ──another stamp?──▶ read anew ──▶ in force from then on
                                 └─ fails ──▶ said in the log, what was in force stays

A stamp is taken before the file is read, so a change in between is seen the next time. Kubernetes swaps a symbolic link
when it renews a secret; the stamp is that of the file behind it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from server.errors import StartupError

POLL_S: Final = 1.0

Value = TypeVar("Value")
Stamp = tuple[int, int, int] | None

log = structlog.get_logger()


class WatchedFiles(Generic[Value]):
    """What some files hold together, as of the last time that they could be read.

    Args:
        paths: The files.
        read: Reads them all; a StartupError says what is wrong with them.
        what: What they are, for the log.

    Raises:
        StartupError: They cannot be read.
    """

    def __init__(self, paths: Iterable[Path], read: Callable[[], Value], what: str) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._what = what
        self._stamps = self._stamp_all()
        self.value = read()

    def refresh(self) -> bool:
        """Reads the files again where one has changed, and returns whether what they hold is new."""
        stamps = self._stamp_all()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self.value = self._read()
        except StartupError as error:
            log.error("what was in force stays", of=self._what, reason=str(error))  # noqa: TRY400  it is the message
            return False
        log.info("read anew", what=self._what, files=[str(path) for path in self._paths])
        return True

    def _stamp_all(self) -> tuple[Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)


def read_secret(path: Path, flag: str) -> bytes:
    """A file's content.

    Args:
        path: The file.
        flag: The setting that names it.

    Raises:
        StartupError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{flag}: expected a file that can be read, received {path}: {error.strerror}") from error


async def refresh_for_ever(refreshes: Iterable[Callable[[], Awaitable[None]]], every_s: float = POLL_S) -> None:
    """Calls each of `refreshes` again and again until it is cancelled; one's failure is logged and stops none.

    Args:
        refreshes: What to call.
        every_s: How long to wait in between.
    """
    todo = tuple(refreshes)
    while True:
        await asyncio.sleep(every_s)
        for refresh in todo:
            try:
                await refresh()
            except Exception:  # whatever it is: keys that no longer follow their files would be worse
                log.exception("refreshing keys failed")


def _stamp(path: Path) -> Stamp:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino
