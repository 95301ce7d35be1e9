"""The store on a real SQLite file: what is written, passed over, found, and deleted by age."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine

from server.cli import read_settings
from server.errors import StartupError
from server.metrics import Metrics
from server.predictions import database, opening
from server.predictions.records import SEQUENCE_BITS
from server.predictions.spool import make_folder
from server.predictions.storage import (
    Batch,
    StorageAway,
    StorageRefused,
)
from server.predictions.store import PredictionStore
from server.predictions.tables import METADATA
from tests.unit.server.prediction_factory import DAY_S, NOW_S, VERSIONS, count, fill, opened, row

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def store(file: Path) -> Iterator[PredictionStore]:
    with opened(file) as store:
        yield store


def test_the_migrations_make_what_the_tables_are_said_to_be(store: PredictionStore) -> None:
    with store._engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
    # SQLite has no BRIN index; tests/e2e/test_prediction_log_postgres.py compares that one.
    assert [(kind, index.name) for kind, index in differences] == [("add_index", "predictions_by_time")]


def test_any_number_of_rows_arrives_once(store: PredictionStore, file: Path) -> None:
    for number in (1, 3, 4, 5, 31, 33, 255, 257, 600):
        before = count(file, "predictions")
        store.write(Batch([row(NOW_S, f"{number}-{at}") for at in range(number)]))
        assert count(file, "predictions") - before == number


def test_a_batch_is_written_as_a_whole_or_not_at_all(store: PredictionStore, file: Path) -> None:
    broken = (*row(NOW_S, "x")[:2], None, *row(NOW_S, "x")[3:])  # no request id
    with pytest.raises(StorageRefused, match="NOT NULL"):
        store.write(Batch([row(NOW_S, "good")] * 256 + [broken], {}, VERSIONS))  # type: ignore[list-item]
    assert count(file, "predictions") == count(file, "prediction_versions") == 0


def test_a_row_that_is_there_already_is_passed_over(store: PredictionStore, file: Path) -> None:
    rows = [row(NOW_S, f"{number}") for number in range(300)]
    store.write(Batch(rows[:100]))
    store.write(Batch(rows))
    assert count(file, "predictions") == 300


def test_a_worker_keeps_its_number_and_none_is_given_twice(store: PredictionStore) -> None:
    numbers = [store.number_of(name) for name in ("first", "second", "first", "third", "second")]
    assert numbers == [1, 2, 1, 3, 2]


def test_each_workers_old_rows_are_found_behind_anothers_young_ones(store: PredictionStore, file: Path) -> None:
    rows = []
    for worker in (0, 1, 2):
        for number in range(20):
            at_s = NOW_S - (20 - number) * DAY_S
            rows.append(((worker << SEQUENCE_BITS) + number, *row(at_s, f"{worker}-{number}")[1:]))
    store.write(Batch(rows))
    before_us = round((NOW_S - 10 * DAY_S) * 1e6)
    assert [store.sweep(before_us, 25) for _ in range(3)] == [25, 5, 0]
    left = store.find([(f"{worker}-{number}", 0) for worker in (0, 1, 2) for number in range(20)])
    assert {name for name, _ in left} == {f"{worker}-{number}" for worker in (0, 1, 2) for number in range(10, 20)}


def test_tables_of_the_first_shoal_are_brought_up_to_date_with_their_rows(file: Path) -> None:
    engine = database.open_engine(database.read_url(f"sqlite:///{file}"))
    migrate_to(engine, "0001")
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute(
            "INSERT INTO predictions (at_us, request_id, position, protocol, model, version, variant, input_sha256,"
            " label, top, latency_us) VALUES (5, 'old', 0, 'http', 'pets', 1, 'int8', '', 'cat', '[]', 7)"
        )
    store = PredictionStore(database.read_url(f"sqlite:///{file}"), window_rows=3)
    store.write(Batch([((store.number_of("new") << SEQUENCE_BITS), *row(NOW_S, "new")[1:])]))
    found = store.find([("old", 0), ("new", 0)])
    assert (found["old", 0].id, found["new", 0].id) == (1, 1 << SEQUENCE_BITS)
    assert store.sweep(1000, 10) == 1
    store.close()
    engine.dispose()


def migrate_to(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def test_a_locked_database_is_one_that_is_away(
    store: PredictionStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 1)
    impatient = PredictionStore(database.read_url(f"sqlite:///{file}"), window_rows=3)
    impatient.open()
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageAway, match="locked"):
            impatient.write(Batch([row(NOW_S, "x")]))
    impatient.write(Batch([row(NOW_S, "x")]))
    impatient.close()
    assert count(file, "predictions") == 1


def test_what_is_old_goes_and_what_is_young_stays(store: PredictionStore, file: Path) -> None:
    store.write(Batch([row(NOW_S - 20 * DAY_S, f"old-{number}") for number in range(250)]))
    fill(store)
    before_us = round((NOW_S - 5 * DAY_S) * 1e6)
    assert [store.sweep(before_us, 100) for _ in range(4)] == [100, 100, 51, 0]
    assert count(file, "predictions") == 305
    assert count(file, "prediction_inputs") == 1  # written just now
    assert count(file, "prediction_gaps") == 1


def test_the_tables_of_a_newer_shoal_are_left_alone(store: PredictionStore, file: Path) -> None:
    store.close()
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute("UPDATE alembic_version SET version_num = '9999'")
    other = PredictionStore(database.read_url(f"sqlite:///{file}"), window_rows=3)
    with pytest.raises(StartupError, match="expected tables of this Shoal or an older one"):
        other.open()
    other.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "expected a database URL such as sqlite:///predictions.db"),
        ("mysql://user:hidden@host/name", r"received mysql://user:\*\*\*@host/name"),
        ("sqlite:///no/such/folder/log.db", "there is no .*/no/such/folder; make it first"),
        ("sqlite://", "expected a file, as in sqlite:///predictions.db"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(StartupError, match=words) as raised:
        database.read_url(url)
    assert "hidden" not in str(raised.value)


# ---- what is not installed ----


def test_a_log_without_its_libraries_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "alembic" else name)
    settings = read_settings(["--prediction-log", f"sqlite:///{tmp_path / 'log.db'}"])

    async def main() -> None:
        async with opening.open_observer(settings, Metrics(), tuple):
            pass

    with pytest.raises(StartupError, match=r"alembic is not installed; pip install 'shoal\[predictions\]'"):
        asyncio.run(main())


def test_each_database_has_a_spool_of_its_own(tmp_path: Path) -> None:
    here = database.read_url(f"sqlite:///{tmp_path / 'log.db'}")
    one, two = (database.read_url(f"postgresql://shoal:{word}@host/{word[:1]}") for word in ("a-1", "b-2"))
    assert opening.spool_folder(None, here) == tmp_path / "log.db-spool"
    folders = [opening.spool_folder(wanted, url) for wanted in (None, tmp_path) for url in (here, one, two)]
    assert len(set(folders)) == 6
    assert {folder.parent for folder in folders[3:]} == {tmp_path}
    again = database.read_url("postgresql://shoal:changed@host/a")
    assert opening.spool_folder(tmp_path, again) == folders[4], "a new password is no new database"


def test_a_spool_is_for_its_owners_eyes_and_no_link(tmp_path: Path) -> None:
    make_folder(tmp_path / "of" / "ours")
    assert (tmp_path / "of" / "ours").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "of")
    with pytest.raises(PermissionError, match="is a link, or somebody else's"):
        make_folder(tmp_path / "link")


@pytest.mark.slow  # starts a process
def test_a_server_without_a_log_imports_none_of_them() -> None:
    program = "import sys, server.app; print(*(name for name in ('sqlalchemy', 'alembic') if name in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
