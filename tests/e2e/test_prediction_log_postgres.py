"""The prediction log on a real PostgreSQL: two workers migrate and write, it is restarted, nothing is lost."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from benchmarks.postgres import Postgres, find_program, run_postgres
from server.predictions.database import open_engine, read_url
from server.predictions.storage import Batch, Gap, Input, StorageRefused, Version
from server.predictions.store import PredictionStore
from server.predictions.tables import METADATA
from server.report import read_report
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: nothing to reach PostgreSQL with")
pytestmark = pytest.mark.slow  # starts a database and servers
WITHIN_S = 30
BRIGHT = picture(250)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if find_program("initdb") is None or find_program("pg_ctl") is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    with run_postgres() as postgres:
        yield postgres


def ask_database(postgres: Postgres, question: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.url) as connection:
        return list(connection.execute(question).fetchall())


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.02)  # other processes are what we wait for


def events(server: ServerProcess) -> list[str]:
    return [json.loads(line)["event"] for line in server.log.splitlines() if line.startswith("{")]


def test_the_first_call_after_a_restart_finds_no_connection_of_before(postgres: Postgres) -> None:
    store = PredictionStore(read_url(postgres.url), window_rows=10)
    store.refresh()
    postgres.stop()
    postgres.start()
    store.refresh()
    store.close()


def test_a_restart_of_the_database_fails_no_request_and_loses_no_row(postgres: Postgres, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "grey", 1)
    log = ("--prediction-log", postgres.url, "--prediction-log-spool", str(tmp_path / "spool"))
    flags = ("--workers", "2", *log, "--latency-budget-ms", "5000")
    answered: list[str] = []
    statuses: set[int] = set()
    with run_server(tmp_path / "models", tmp_path / "server", *flags) as server:
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():  # a connection for each, so that both workers are asked
                with Http(server.http_port) as http:
                    answer = http.predict(BRIGHT)
                statuses.add(answer.status)
                answered.append(answer.headers["X-Request-Id"])

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) > 100, "100 answers")
        postgres.stop()
        away = "the prediction log's database is away"
        wait_until(lambda: events(server).count(away) >= 1, "the writer misses it")
        before = len(answered)
        wait_until(lambda: len(answered) > before + 50, "answers without a database")
        postgres.start()
        back = "the prediction log's database is back"
        wait_until(lambda: events(server).count(back) >= 1, "the writer has it back")
        done.set()
        for thread in threads:
            thread.join()
        with Http(server.http_port) as http:
            told = http.predict({"request_id": answered[before], "label": "dark"}, path="/feedback")
        assert (told.status, told.json) == (200, {"accepted": 1, "correct": 0, "unknown": []})
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert statuses == {200}
    rows = [name for (name,) in ask_database(postgres, "SELECT request_id FROM predictions")]
    assert set(answered) <= set(rows)
    assert len(rows) == len(set(rows)), "what was not confirmed is not there twice"
    assert ask_database(postgres, "SELECT * FROM prediction_gaps WHERE reason <> 'made up'") == []
    report = read_report(postgres.url, 2, time.time())
    assert report.predictions == len(rows)
    told_of = [one for one in report.versions if one.model == "grey"]
    assert [(one.feedback, one.accuracy, one.expected_accuracy) for one in told_of] == [(1, 0, 1)]


def test_the_store_does_on_postgresql_what_it_does_on_sqlite(postgres: Postgres) -> None:
    store = PredictionStore(read_url(postgres.url), window_rows=10)
    store.open()
    facts = (5, "old", 0, None, "http", "pets", 1, "int8", "digest", "cat", None, "[]", 7)
    rows = [(number, *facts) for number in range(300)]
    numbers = [store.number_of(name) for name in ("first", "second", "first")]
    assert numbers[0] == numbers[2] != numbers[1]
    versions = {("pets", 1): Version(("cat", "dog"), "int8", None)}
    store.write(Batch(rows[:100]))
    store.write(Batch(rows, {"digest": Input(b"\0picture", "encoded")}, versions, Gap(0, 1, 3, "made up")))
    known = store.find([("old", 0), ("old", 1)])
    assert [(one.label, one.labels) for one in known.values()] == [("cat", ("cat", "dog"))]
    for label in ("dog", "cat"):  # the second one replaces the first
        store.save_feedback({("old", 0): (known["old", 0], label)})
    store.refresh()
    assert (store.accuracies["pets", 1].rows, store.accuracies["pets", 1].correct) == (1, 1)
    with pytest.raises(StorageRefused, match="NUL"):
        store.write(Batch([(7_000, 5, "a\0b", *facts[2:])]))
    assert [store.sweep(1000, 250), store.sweep(1000, 250), store.sweep(1000, 250)] == [250, 50, 0]
    store.close()


def test_the_migrations_make_what_the_tables_are_said_to_be(postgres: Postgres) -> None:
    store = PredictionStore(read_url(postgres.url), window_rows=10)
    store.open()
    store.close()
    engine = open_engine(read_url(postgres.url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
