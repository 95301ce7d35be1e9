"""The database of a study: SQLite set up for several writers, or whatever a URL names."""

from typing import Any, Final

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from training.errors import TrainingError

_BUSY_TIMEOUT_S: Final = 60.0  # how long one worker waits for another one's write


def open_storage(url: str) -> RDBStorage:
    """Opens a study's database, and creates its tables in an empty one.

    SQLite gets a write-ahead log (`journal_mode=WAL`, `synchronous=NORMAL`): a commit is then no `fsync`, readers and
    the writer do not wait for each other, and what a killed process committed is kept. A power failure can undo the
    last commits, never damage the file. SQLite is for the workers of one machine; several machines share PostgreSQL.

    Args:
        url: An SQLAlchemy URL: `sqlite:///study.db`, `postgresql+psycopg://user:password@host/name`.

    Raises:
        TrainingError: The URL is malformed, its driver is not installed or the database cannot be reached.
    """
    sqlite = url.startswith("sqlite")
    arguments: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if sqlite else {"pool_pre_ping": True}
    try:
        storage = RDBStorage(url, engine_kwargs=arguments)
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"expected a database at {_without_password(url)}, but {first_line(error)}: "
            "check the path or the host, and that the driver is installed"
        ) from error
    if sqlite:
        event.listen(storage.engine, "connect", _prepare_sqlite)
        storage.engine.dispose()  # what it opened so far is not prepared
    return storage


def first_line(error: BaseException) -> str:
    """Returns what a storage's error says in one line: what the driver said, where it is the cause."""
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest else url
