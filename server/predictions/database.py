"""The prediction log's database: a URL becomes an engine, and its tables what this software expects.

    sqlite:///predictions.db ──WAL, busy timeout──────────────▶ engine ──Alembic, under a lock──▶ tables
    postgresql://user@host/name ──psycopg, short time limits──▶

SQLAlchemy is imported here and beside; a server without a prediction log never gets here.
"""

from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from server.errors import StartupError

EXAMPLES: Final = "sqlite:///predictions.db or postgresql://user@host/name"
MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
BUSY_MS: Final = 5000
# How long one that migrates is waited for.
_MIGRATION_MS: Final = 60_000
_LOCK: Final = 0x53686F616C  # "Shoal", as PostgreSQL's advisory locks are numbers
# A database that has gone without a word must not hold the writer for longer.
_POSTGRESQL: Final = {
    "application_name": "shoal",
    "connect_timeout": 3,
    "tcp_user_timeout": 5000,
    "options": "-c statement_timeout=15000 -c lock_timeout=10000",
    "prepare_threshold": None,  # poolers between here and the database lose prepared statements
}


def read_url(spelled: str) -> URL:
    """Reads a database URL.

    Args:
        spelled: `sqlite:///FILE`, or `postgresql://…`; the driver may be named or left out.

    Raises:
        StartupError: It is neither, or its folder is not there; the message shows no password.
    """
    try:
        url = make_url(spelled)
    except ArgumentError:
        raise StartupError(f"expected a database URL such as {EXAMPLES}, received what is no URL") from None
    kind = url.get_backend_name()
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise StartupError(f"expected a database URL such as {EXAMPLES}, received {url.render_as_string()}")
    if not url.database or url.database == ":memory:":
        raise StartupError(f"expected a file, as in sqlite:///predictions.db, received {url.render_as_string()}")
    folder = Path(url.database).absolute().parent
    if not folder.is_dir():
        raise StartupError(f"expected a folder for {url.database}, there is no {folder}; make it first")
    return url.set(drivername="sqlite+pysqlite")


def open_engine(url: URL) -> Engine:
    """An engine for a URL; nothing is connected yet.

    Args:
        url: From `read_url`.

    Raises:
        StartupError: The database's driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        # Each connection is tried before it is used: one from before a restart of the database would fail once.
        return create_engine(
            url, pool_size=2, max_overflow=0, pool_timeout=5, pool_pre_ping=True, connect_args=_POSTGRESQL
        )
    except (ModuleNotFoundError, NoSuchModuleError):
        raise StartupError(
            "expected psycopg for a PostgreSQL database, it is not installed; pip install 'shoal[postgres]'"
        ) from None


def migrate(engine: Engine) -> None:
    """Brings the tables to what this software expects.

    Several processes may call it at once: one does it, the others wait.

    Args:
        engine: The database.

    Raises:
        StartupError: The tables are those of a newer Shoal.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be used.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if _revision(connection) == newest:
            return
    with engine.connect() as connection:
        _lock(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StartupError(
                f"expected tables of this Shoal or an older one in {engine.url.render_as_string()}, received those of"
                f" revision {_revision(connection)}, which this one does not know ({error}); start the newer Shoal, or"
                " name another database"
            ) from None
        connection.commit()
    engine.dispose()  # and with the connection, the long time limits


def _revision(connection: Connection) -> str | None:
    revision: str | None = MigrationContext.configure(connection).get_current_revision()
    return revision


def _lock(connection: Connection) -> None:
    """Waits until this process alone may change tables; the end of the transaction lets the next one go."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {_MIGRATION_MS}"))
        connection.execute(text(f"SET LOCAL statement_timeout = {_MIGRATION_MS}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        return
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {_MIGRATION_MS}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, _: object) -> None:
    # WAL: readers and the one writer are not in each other's way; NORMAL: a power cut may cost the last writes, never
    # the file.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"busy_timeout = {BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")
