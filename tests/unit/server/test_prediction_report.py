"""The store on a real SQLite file, what feedback makes of it, and the report over both."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from server.cli import read_settings
from server.errors import InvalidInput, StartupError, Unavailable
from server.feedback import Feedback, FeedbackDesk, Key
from server.metrics import Metrics
from server.predictions import database, opening
from server.predictions.log import Accuracy, Batch, Gap, Known, StorageAway, StorageRefused, Version
from server.predictions.records import Input, Row
from server.predictions.store import PredictionStore
from server.predictions.tables import METADATA
from server.report import read_report, run_report

ROOT = Path(__file__).parents[3]
DAY_S = 86_400
NOW_S = 1_000 * DAY_S + 3600.0  # 1972-09-27, one o'clock


def row(at_s: float, name: str, *, client: str | None = None, version: int = 1, label: str = "cat", n: int = 0) -> Row:
    return (round(at_s * 1e6), name, n, client, "http", "pets", version, "int8", name, label, 0.5, "[]", 2000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def store(file: Path) -> Iterator[PredictionStore]:
    store = PredictionStore(database.read_url(f"sqlite:///{file}"), window_rows=3)
    store.open()
    yield store
    store.close()


VERSIONS = {("pets", number): Version(("cat", "dog"), "int8", 0.9) for number in (1, 2)}


def fill(store: PredictionStore) -> None:
    rows = [row(NOW_S, f"today-{number}", client="shop") for number in range(300)]
    rows += [row(NOW_S - DAY_S, "yesterday", version=2, label="dog", n=number) for number in range(5)]
    rows += [row(NOW_S - 9 * DAY_S, "long-ago", client="<b>")]
    store.write(Batch(rows, {"x": Input(b"picture", "encoded")}, VERSIONS, Gap(NOW_S - 60, NOW_S - 30, 7, "away")))


def count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as opened:
        return int(opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# ---- the store ----


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
    broken = (*row(NOW_S, "x")[:1], None, *row(NOW_S, "x")[2:])  # no request id
    with pytest.raises(StorageRefused, match="NOT NULL"):
        store.write(Batch([row(NOW_S, "good")] * 256 + [broken], {}, VERSIONS))  # type: ignore[list-item]
    assert count(file, "predictions") == count(file, "prediction_versions") == 0


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
    fill(store)
    store.write(Batch([row(NOW_S - 20 * DAY_S, f"old-{number}") for number in range(250)]))
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


# ---- feedback ----


def take(desk: FeedbackDesk, *given: Feedback) -> tuple[int, int, int]:
    taken = asyncio.run(desk.take(given))
    return taken.accepted, taken.correct, len(taken.unknown)


def test_live_accuracy_is_that_of_the_latest_feedback(store: PredictionStore) -> None:
    fill(store)
    desk = FeedbackDesk(store, wait_s=0)
    for number, label in enumerate(("dog", "dog", "cat", "cat", "dog")):  # all were answered "cat"
        take(desk, Feedback(f"today-{number}", label))
    assert store.accuracies == {("pets", 1): Accuracy(rows=3, correct=2)}
    assert take(desk, Feedback("today-4", 0), Feedback("nobody", "cat")) == (1, 1, 1)
    assert store.accuracies == {("pets", 1): Accuracy(rows=3, correct=3)}
    assert desk.counts == {("pets", 1, False): 3, ("pets", 1, True): 3}
    desk.close()


def test_one_wrong_label_refuses_the_whole_call(store: PredictionStore, file: Path) -> None:
    fill(store)
    desk = FeedbackDesk(store, wait_s=0)
    with pytest.raises(
        InvalidInput, match=r"expected a label of 'pets' version 1 \(cat, dog\) or its number, received 2"
    ):
        take(desk, Feedback("today-1", "cat"), Feedback("today-2", 2))
    assert count(file, "feedback") == 0
    desk.close()


class SlowShelf:
    """Has a prediction only when it is asked for the third time."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails: Exception | None = None

    def find(self, keys: Sequence[Key]) -> dict[Key, Known]:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return {key: Known(1, None, "pets", 1, "cat", ()) for key in keys} if self.asked > 2 else {}

    def save_feedback(self, given: object) -> None:
        pass

    def refresh(self) -> None:
        pass


def test_what_another_worker_is_about_to_write_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.feedback.POLL_S", 0)
    shelf = SlowShelf()
    desk = FeedbackDesk(shelf, wait_s=60)
    assert take(desk, Feedback("late", "cat")) == (1, 1, 0)
    assert shelf.asked == 3
    desk.close()


def test_a_database_that_is_away_is_told_without_its_address() -> None:
    shelf = SlowShelf()
    shelf.fails = StorageAway("connection to db.internal failed")
    desk = FeedbackDesk(shelf)
    with pytest.raises(Unavailable, match="send it again later") as raised:
        take(desk, Feedback("any", "cat"))
    assert "db.internal" not in str(raised.value)
    desk.close()


# ---- the report ----


def test_a_report_counts_by_day_client_model_and_version(store: PredictionStore, file: Path) -> None:
    fill(store)
    desk = FeedbackDesk(store, wait_s=0)
    take(desk, Feedback("today-1", "dog"), Feedback("today-2", "cat"))
    desk.close()
    report = read_report(f"sqlite:///{file}", 2, NOW_S)
    assert report.predictions == 305
    assert report.by_day == {"1972-09-26": 5, "1972-09-27": 300}
    assert report.by_client == {"shop": 300, "": 5}
    assert report.by_model == {"pets": 305}
    told = [
        (one.version, one.predictions, one.feedback, one.accuracy, one.expected_accuracy) for one in report.versions
    ]
    assert told == [(1, 300, 2, 0.5, 0.9), (2, 5, 0, None, 0.9)]
    assert [(one.day, one.client, one.mean_latency_ms, one.mean_confidence) for one in report.usage] == [
        ("1972-09-26", "", 2.0, 0.5),
        ("1972-09-27", "shop", 2.0, 0.5),
    ]
    assert [(gap.rows, gap.reason) for gap in report.gaps] == [(7, "away")]
    assert read_report(f"sqlite:///{file}", 10, NOW_S).predictions == 306


def test_the_page_needs_no_other_file_and_believes_no_name(store: PredictionStore, file: Path, tmp_path: Path) -> None:
    fill(store)
    page, data = tmp_path / "usage.html", tmp_path / "usage.json"
    words = ["--database", f"sqlite:///{file}", "--days", "10", "--html", str(page), "--json", str(data)]
    run_report(words, now_s=lambda: NOW_S)
    text = page.read_text()
    assert "306 pictures were answered" in text
    assert "7 more were answered and are not in the log" in text
    assert text.count("<rect ") == 3
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert not re.search(r"(src|href)=|<script", text)
    assert json.loads(data.read_text())["by_client"] == {"shop": 300, "": 5, "<b>": 1}


def test_an_empty_log_has_a_report_too(store: PredictionStore, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_report(["--database", f"sqlite:///{file}"], now_s=lambda: NOW_S)
    assert json.loads(capsys.readouterr().out)["predictions"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --database"),
        (["--database", "sqlite:///no-such.db"], "expected a prediction log, there is no file no-such.db"),
        (["--database", "sqlite:///{empty}"], "expected a prediction log in .*, it cannot be read: no such table"),
        (["--database", "sqlite:///{file}", "--days", "0"], "expected a number of days from 1 to 3,660, received '0'"),
        (["--database", "sqlite:///{file}", "--html", "/no/such/x.html"], "/no/such/x.html cannot be written"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    store: PredictionStore, file: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(StartupError, match=message):
        run_report([word.format(file=file, empty=empty) for word in words])


@pytest.mark.slow  # starts a process
def test_the_command_says_what_is_wrong_and_where_it_is_explained() -> None:
    command = [sys.executable, "-m", "server", "report", "--day", "3"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.rstrip().endswith("see python -m server report --help")
    assert ended.stderr.count("\n") == 1


# ---- what is not installed ----


def test_a_log_without_its_libraries_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "alembic" else name)
    settings = read_settings(["--prediction-log", f"sqlite:///{tmp_path / 'log.db'}"])

    async def main() -> None:
        async with opening.open_observer(settings, Metrics(), tuple):
            pass

    with pytest.raises(StartupError, match=r"alembic is not installed; pip install 'shoal\[predictions\]'"):
        asyncio.run(main())


@pytest.mark.slow  # starts a process
def test_a_server_without_a_log_imports_none_of_them() -> None:
    program = "import sys, server.app; print(*(name for name in ('sqlalchemy', 'alembic') if name in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
