"""What feedback makes of a store on a real SQLite file, and the report over both."""

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from server.errors import InvalidInput, StartupError, Unavailable
from server.feedback import Feedback, FeedbackDesk, Key
from server.predictions.blocks import pack_rows, pack_version
from server.predictions.finder import Finder
from server.predictions.recorder import Recorder
from server.predictions.spool import Segment, new_origin
from server.predictions.storage import (
    Accuracy,
    Known,
    StorageAway,
)
from server.predictions.store import PredictionStore
from server.report import read_report, run_report
from tests.unit.server.prediction_factory import LANE, NOW_S, count, entry, fill, group, opened

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def store(file: Path) -> Iterator[PredictionStore]:
    with opened(file) as store:
        yield store


# ---- feedback ----


def take(desk: FeedbackDesk, *given: Feedback) -> tuple[int, int, int]:
    taken = asyncio.run(desk.take(given))
    return taken.accepted, taken.correct, len(taken.unknown)


def test_live_accuracy_is_that_of_the_latest_feedback(store: PredictionStore, file: Path) -> None:
    fill(store)
    desk = FeedbackDesk(Finder(store, file.parent), wait_s=0)
    for number, label in enumerate(("dog", "dog", "cat", "cat", "dog")):  # all were answered "cat"
        take(desk, Feedback(f"today-{number}", label))
    assert store.accuracies == {("pets", 1): Accuracy(rows=3, correct=2)}
    assert take(desk, Feedback("today-4", 0), Feedback("nobody", "cat")) == (1, 1, 1)
    assert store.accuracies == {("pets", 1): Accuracy(rows=3, correct=3)}
    assert desk.counts == {("pets", 1, False): 3, ("pets", 1, True): 3}
    desk.close()


def test_one_wrong_label_refuses_the_whole_call(store: PredictionStore, file: Path) -> None:
    fill(store)
    desk = FeedbackDesk(Finder(store, file.parent), wait_s=0)
    with pytest.raises(
        InvalidInput, match=r"expected a label of 'pets' version 1 \(cat, dog\) or its number, received 2"
    ):
        take(desk, Feedback("today-1", "cat"), Feedback("today-2", 2))
    assert count(file, "feedback") == 0
    desk.close()


class SlowShelf:
    """Has a prediction only when it is asked for the third time."""

    def __init__(self) -> None:
        self.asked = self.looked = 0
        self.fails: Exception | None = None

    def find(self, keys: Sequence[Key]) -> dict[Key, Known]:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return {key: Known(1, None, "pets", 1, "cat", ()) for key in keys} if self.asked > 2 else {}

    def find_waiting(self, keys: Sequence[Key]) -> dict[Key, Known]:
        self.looked += 1
        return {}

    def save_feedback(self, given: object) -> None:
        pass

    def refresh(self) -> None:
        pass


def test_what_another_worker_is_about_to_write_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.feedback.POLL_S", 0)
    shelf = SlowShelf()
    desk = FeedbackDesk(shelf, wait_s=60)
    assert take(desk, Feedback("late", "cat")) == (1, 1, 0)
    assert (shelf.asked, shelf.looked) == (3, 1)
    desk.close()


def test_all_that_waits_is_read_twice_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.feedback.POLL_S", 0)
    shelf, now_s = SlowShelf(), itertools.count(0.0, 0.1)
    shelf.asked = -100
    desk = FeedbackDesk(shelf, wait_s=1.0, clock=lambda: next(now_s))
    assert take(desk, Feedback("nobody", "cat")) == (0, 0, 1)
    assert shelf.asked > -92
    assert shelf.looked == 2
    desk.close()


def test_feedback_finds_what_still_waits_in_the_spool(store: PredictionStore, file: Path, tmp_path: Path) -> None:
    segment = Segment(tmp_path, f"{new_origin()}.000001")
    answers = group(entry(b"x", name="1"), entry(b"y", b"z", name="2"), entry(b"u", name="3"))
    segment.append(pack_version(LANE, 0) + pack_rows(answers, 0, 0), 4)
    desk = FeedbackDesk(Finder(store, tmp_path), wait_s=0)
    given = [Feedback("2", "dark", position=1), Feedback("3", "bright"), Feedback("2", "dark", position=2)]
    assert take(desk, *given) == (2, 1, 1)
    assert count(file, "predictions") == 2
    recorder = Recorder(tmp_path, store)
    while recorder.step():
        pass
    recorder.close()
    segment.close()
    assert count(file, "predictions") == 4, "the writer passes over those that feedback has written"
    assert take(desk, Feedback("3", "dim")) == (1, 0, 0)
    assert count(file, "feedback") == 2
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
    desk = FeedbackDesk(Finder(store, file.parent), wait_s=0)
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
