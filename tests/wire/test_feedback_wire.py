"""`POST /feedback` of real servers: two workers, one database, and one server that keeps no log."""

import json
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import worker_pids
from benchmarks.scrape import sample
from tests.wire.bundles import LABELS, picture, write_bundle
from tests.wire.http_client import Answer, Http, form
from tests.wire.server_process import ServerProcess, run_server

pytestmark = pytest.mark.slow  # starts servers
WITHIN_S = 20
BRIGHT = picture(250)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feedback")
    for name in ("grey", "other", "third"):
        write_bundle(folder / "models", name, 1)
    return folder


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[ServerProcess]:
    """Two workers with one log."""
    flags = ("--workers", "2", "--prediction-log", f"sqlite:///{folder / 'log.db'}", "--latency-budget-ms", "5000")
    with run_server(folder / "models", folder / "server", *flags) as process:
        yield process


def ask(server: ServerProcess, request_id: str, *pictures: bytes, model: str = "grey") -> None:
    with Http(server.http_port) as http:
        body, kind = form(*(("file", "a.png", one) for one in pictures or (BRIGHT,)))
        assert http.predict(body, kind, f"/predict/{model}", X_Request_Id=request_id).status == 200


def tell(server: ServerProcess, body: Any) -> Answer:
    """On a connection of its own, so that the workers take turns."""
    with Http(server.http_port) as http:
        return http.ask("POST", "/feedback", json.dumps(body).encode(), {"Content-Type": "application/json"})


def metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as response:
        return str(response.read().decode())


def saved(folder: Path, request_id: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "log.db")) as database:
        question = "SELECT position, predicted, label, correct FROM feedback WHERE request_id = ? ORDER BY position"
        return database.execute(question, (request_id,)).fetchall()


def test_any_worker_takes_feedback_on_what_any_worker_answered(workers: ServerProcess, folder: Path) -> None:
    assert len(worker_pids(workers.process.pid)) == 2
    for number in range(6):
        ask(workers, f"any-{number}")
    for number in range(6):
        answer = tell(workers, {"request_id": f"any-{number}", "label": "bright"})
        assert (answer.status, answer.json) == (200, {"accepted": 1, "correct": 1, "unknown": []})
        assert saved(folder, f"any-{number}") == [(0, "bright", "bright", 1)]


def test_several_at_once_by_picture_name_and_number(workers: ServerProcess, folder: Path) -> None:
    ask(workers, "several", picture(10), picture(120), picture(250))
    given = [
        {"request_id": "several", "label": "dark"},
        {"request_id": "several", "label": 0, "position": 1},
        {"request_id": "several", "label": 2, "position": 2},
        {"request_id": "several", "label": "dim", "position": 3},
    ]
    answer = tell(workers, given)
    assert answer.status == 200
    assert answer.json == {"accepted": 3, "correct": 2, "unknown": [{"request_id": "several", "position": 3}]}
    assert saved(folder, "several") == [(0, "dark", "dark", 1), (1, "dim", "dark", 0), (2, "bright", "bright", 1)]


def test_the_last_word_counts(workers: ServerProcess, folder: Path) -> None:
    ask(workers, "again", model="other")
    for label in ("dark", "dim", "bright"):
        assert tell(workers, {"request_id": "again", "label": label}).status == 200
    assert saved(folder, "again") == [(0, "bright", "bright", 1)]


def test_live_accuracy_is_the_same_on_the_page_of_every_worker(workers: ServerProcess) -> None:
    for number in range(8):
        ask(workers, f"live-{number}", model="third")
        tell(workers, {"request_id": f"live-{number}", "label": "bright" if number < 6 else "dark"})
    give_up_s = time.monotonic() + WITHIN_S
    while sample(metrics(workers), "shoal_live_accuracy", model="third") != 0.75:  # while one is behind, it is more
        assert time.monotonic() < give_up_s
        time.sleep(0.05)  # another process reads it
    for _ in range(4):
        text = metrics(workers)
        assert sample(text, "shoal_live_accuracy", model="third", version="1") == 0.75
        assert sample(text, "shoal_live_accuracy_rows", model="third", version="1") == 8
        assert sample(text, "shoal_feedback_total", model="third", version="1", correct="true") == 6
        assert sample(text, "shoal_feedback_total", model="third", version="1", correct="false") == 2
        assert sample(text, "shoal_expected_accuracy", model="third", version="1", variant="float32") == 1


def test_what_was_never_answered_is_told_apart(workers: ServerProcess) -> None:
    answer = tell(workers, [{"request_id": "nobody", "label": "dim"}, {"request_id": "no-one", "label": "dim"}])
    assert (answer.status, answer.json["type"]) == (404, "urn:shoal:prediction-not-found")
    assert "received nobody (picture 0) and 1 more" in answer.json["detail"]


@pytest.mark.parametrize("label", ["purple", 3])
def test_a_label_of_another_model_refuses_the_whole_call(workers: ServerProcess, folder: Path, label: Any) -> None:
    ask(workers, f"labels-{label}", BRIGHT, BRIGHT)
    given = [{"request_id": f"labels-{label}", "label": "dim", "position": 1}]
    answer = tell(workers, [*given, {"request_id": f"labels-{label}", "label": label}])
    assert (answer.status, answer.json["type"]) == (400, "urn:shoal:invalid-input")
    assert f"expected a label of 'grey' version 1 ({', '.join(LABELS)}) or its number" in answer.json["detail"]
    assert saved(folder, f"labels-{label}") == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "expected 1 to 1,000 pieces of feedback, received 0"),
        ([{"request_id": "a", "label": 1}] * 1001, "received 1,001"),
        (7, "expected feedback as an object"),
        ({"request_id": "a"}, "expected request_id, label and perhaps position, received request_id"),
        ({"request_id": "a", "label": 1, "id": 2}, "received id, label, request_id"),
        ({"request_id": "a b", "label": 1}, "expected request_id as the answer's X-Request-Id has it, received 'a b'"),
        ({"request_id": 7, "label": 1}, "received 7"),
        ({"request_id": "a", "label": True}, "expected label as a class's name or number, received True"),
        ({"request_id": "a", "label": ""}, "expected label"),
        ({"request_id": "a", "label": "\0"}, "expected label"),
        ({"request_id": "a", "label": 1.5}, "expected label"),
        ({"request_id": "a", "label": 1, "position": -1}, "expected position"),
        ({"request_id": "a", "label": 1, "position": "0"}, "expected position"),
    ],
)
def test_what_is_no_feedback_is_refused_in_words(workers: ServerProcess, body: Any, words: str) -> None:
    answer = tell(workers, body)
    assert answer.status == 400
    assert words in answer.json["detail"]


def test_a_server_without_a_log_says_so(server: ServerProcess) -> None:
    answer = tell(server, {"request_id": "a", "label": 1})
    assert (answer.status, answer.json["type"]) == (404, "urn:shoal:prediction-not-found")
    assert "--prediction-log" in answer.json["detail"]
