"""The prediction log of real servers, read from its database as anybody would."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import children
from benchmarks.scrape import sample
from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import LABELS, expected_probabilities, picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server, run_to_end

pytestmark = pytest.mark.slow  # starts servers
WITHIN_S = 20
BRIGHT = picture(250)
PIXELS = bytes(range(190, 254))  # 8 × 8, bright


def read(file: Path, question: str, *values: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(question, values)]


def logged(file: Path, request_id: str, rows: int = 1) -> list[dict[str, Any]]:
    """Its rows, once they are there."""
    give_up_s = time.monotonic() + WITHIN_S
    while True:
        found = read(file, "SELECT * FROM predictions WHERE request_id = ? ORDER BY position", request_id)
        if len(found) >= rows:
            return found
        assert time.monotonic() < give_up_s, f"{request_id} is not in the log"
        time.sleep(0.02)  # another process writes it


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    return models


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log.db"


@pytest.fixture(scope="module")
def server(models: Path, database: Path) -> Iterator[ServerProcess]:
    flags = ("--prediction-log", f"sqlite:///{database}", "--prediction-log-inputs", "whole")
    more = ("--latency-budget-ms", "5000", "--response-cache-bytes", "1000000")
    with run_server(models, database.parent / "server", *flags, *more) as process:
        yield process


@pytest.fixture
def http(server: ServerProcess) -> Iterator[Http]:
    with Http(server.http_port) as client:
        yield client


def check(row: dict[str, Any], protocol: str, content: bytes, level: float) -> None:
    assert (row["model"], row["version"], row["variant"]) == ("grey", 1, "float32")
    assert (row["protocol"], row["client"]) == (protocol, None)
    assert row["input_sha256"] == hashlib.sha256(content).hexdigest()
    expected = expected_probabilities(level)
    ranked = sorted(zip(LABELS, expected.tolist(), strict=True), key=lambda pair: -pair[1])
    assert row["label"] == ranked[0][0]
    assert row["confidence"] == pytest.approx(ranked[0][1], abs=1e-4)
    told = [pair for pair in ranked if pair[1] >= 0.001]
    assert [name for name, _ in json.loads(row["top"])] == [name for name, _ in told]
    assert [share for _, share in json.loads(row["top"])] == pytest.approx([share for _, share in told], abs=1e-4)
    assert time.time() - 60 < row["at_us"] / 1e6 <= time.time()
    assert 0 < row["latency_us"] < 5e6


def test_a_picture_is_logged_with_its_digest_and_kept_where_that_is_asked_for(http: Http, database: Path) -> None:
    assert http.predict(BRIGHT, "image/png", X_Request_Id="one-picture").status == 200
    check(logged(database, "one-picture")[0], "http", BRIGHT, 250)
    digest = hashlib.sha256(BRIGHT).hexdigest()
    kept = read(database, "SELECT * FROM prediction_inputs WHERE sha256 = ?", digest)
    assert [(row["form"], row["content"]) for row in kept] == [("encoded", BRIGHT)]


def test_each_picture_of_a_request_has_its_row(http: Http, database: Path) -> None:
    pictures = [picture(level) for level in (10, 120, 250)]
    body = {"images": [base64.b64encode(one).decode() for one in pictures]}
    assert http.predict(body, X_Request_Id="three-pictures").status == 200
    rows = logged(database, "three-pictures", 3)
    assert [row["position"] for row in rows] == [0, 1, 2]
    for row, content, level in zip(rows, pictures, (10, 120, 250), strict=True):
        check(row, "http", content, level)


def test_numbers_are_logged_as_the_pixels_they_are(http: Http, database: Path) -> None:
    mean = sum(PIXELS) / len(PIXELS)
    for name in ("numbers", "numbers-again"):  # the second one is answered from the cache
        assert http.predict({"data": list(PIXELS)}, X_Request_Id=name).status == 200
        check(logged(database, name)[0], "http", PIXELS, mean)
    found = read(
        database, "SELECT form, content FROM prediction_inputs WHERE sha256 = ?", hashlib.sha256(PIXELS).hexdigest()
    )
    assert found == [{"form": "uint8[8, 8, 1]", "content": PIXELS}]


def test_other_protocols_are_logged_too(server: ServerProcess, http: Http, database: Path) -> None:
    head = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": list(PIXELS)}
    assert http.predict({"inputs": [head]}, path="/v2/models/grey/infer", X_Request_Id="by-v2").status == 200
    check(logged(database, "by-v2")[0], "v2_http", PIXELS, sum(PIXELS) / len(PIXELS))
    with server.channel() as channel:
        stub = pb_grpc.ClassifierStub(channel)
        asked = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[BRIGHT]))
        stub.Classify(asked, metadata=(("x-request-id", "by-grpc"),))
    check(logged(database, "by-grpc")[0], "grpc", BRIGHT, 250)


def test_each_message_of_a_stream_has_an_id_of_its_own(server: ServerProcess, database: Path) -> None:
    levels = (10, 120, 250)
    asked = [pb.ClassifyRequest(encoded=pb.EncodedImages(images=[picture(level)])) for level in levels]
    with server.channel() as channel:
        answers = pb_grpc.ClassifierStub(channel).ClassifyStream(iter(asked), metadata=(("x-request-id", "streamed"),))
        assert len(list(answers)) == 3
    for name, level in zip(("streamed", "streamed.1", "streamed.2"), levels, strict=True):
        check(logged(database, name)[0], "grpc", picture(level), level)


def test_what_is_refused_is_not_logged(http: Http, database: Path) -> None:
    assert http.predict(b"no picture", X_Request_Id="refused").status == 415
    assert http.predict(BRIGHT, X_Request_Id="behind-it").status == 200
    logged(database, "behind-it")
    assert read(database, "SELECT * FROM predictions WHERE request_id = 'refused'") == []


def test_the_metrics_say_what_was_written(http: Http, database: Path) -> None:
    assert http.predict(BRIGHT, X_Request_Id="counted").status == 200
    logged(database, "counted")
    text = http.get("/metrics").body.decode()
    rows = read(database, "SELECT count(*) AS n FROM predictions")[0]["n"]
    # The row is seen as soon as its transaction has ended, a moment before it is counted.
    assert rows - 1 <= sample(text, "shoal_prediction_log_written_total") <= rows
    assert sample(text, "shoal_prediction_log_dropped_total") == 0
    assert sample(text, "shoal_expected_accuracy", model="grey", version="1", variant="float32") == 1


def test_a_stop_under_load_writes_every_answer_of_every_worker(models: Path, tmp_path: Path) -> None:
    file, answered = tmp_path / "log.db", []
    flags = ("--workers", "2", "--prediction-log", f"sqlite:///{file}", "--latency-budget-ms", "5000")
    with run_server(models, tmp_path / "server", *flags) as server:
        gone = threading.Event()

        def ask() -> None:
            with Http(server.http_port) as http:
                while not gone.is_set():
                    try:
                        answered.append(http.predict(BRIGHT).headers["X-Request-Id"])
                    except OSError:
                        return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 300:
            time.sleep(0.01)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        gone.set()
        for thread in threads:
            thread.join()
    rows = [row["request_id"] for row in read(file, "SELECT request_id FROM predictions")]
    assert len(rows) == len(set(rows))
    assert set(answered) <= set(rows)
    assert len({name.partition("-")[0] for name in rows}) == 2  # both workers wrote
    # The writer has ended before the server, and has left the database closed and nothing in the spool.
    assert sorted(path.name for path in tmp_path.glob("log.db*")) == ["log.db", "log.db-spool"]
    assert list((tmp_path / "log.db-spool").glob("*.rows")) == []


def test_a_database_that_is_away_costs_no_request_and_no_row(models: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: whoever connects is refused
        url = f"postgresql://shoal:hidden@127.0.0.1:{taken.getsockname()[1]}/nothing"
        flags = (
            "--prediction-log",
            url,
            "--prediction-log-spool",
            str(tmp_path / "spool"),
            "--latency-budget-ms",
            "5000",
        )
        with run_server(models, tmp_path, *flags, "--prediction-log-stop-s", "1") as server:
            with Http(server.http_port) as http:
                assert [http.predict(BRIGHT).status for _ in range(5)] == [200] * 5
                text = http.get("/metrics").body.decode()
                feedback = http.predict({"request_id": "any", "label": 0}, path="/feedback")
            assert sample(text, "shoal_prediction_log_queue") == 5
            assert (feedback.status, feedback.json["type"]) == (503, "urn:shoal:unavailable")
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        events = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    waiting = [event for event in events if event["event"] == "predictions wait in the spool for the next start"]
    assert [event["rows"] for event in waiting] == [5]
    assert len(list(Path(waiting[0]["folder"]).glob("*.rows"))) == 1
    assert Path(waiting[0]["folder"]).parent == tmp_path / "spool"
    assert any("the prediction log's database is away" in event["event"] for event in events)
    assert "hidden" not in server.log


def test_what_a_killed_server_had_answered_is_written_without_it(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    flags = ("--prediction-log", f"sqlite:///{file}", "--latency-budget-ms", "5000")
    with run_server(models, tmp_path / "server", *flags) as server:
        with Http(server.http_port) as http:
            assert http.predict(BRIGHT, X_Request_Id="before").status == 200
            logged(file, "before")
            (writer,) = children(server.process.pid)
            os.kill(writer, signal.SIGSTOP)
            assert http.predict(BRIGHT, X_Request_Id="in-the-spool").status == 200
            wait_for_bytes(tmp_path / "log.db-spool", b"in-the-spool")
        server.signal(signal.SIGKILL)
        server.wait()
        os.kill(writer, signal.SIGCONT)
    assert [row["label"] for row in logged(file, "in-the-spool")] == ["bright"]


def wait_for_bytes(folder: Path, content: bytes) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not any(content in path.read_bytes() for path in folder.glob("*.rows")):
        assert time.monotonic() < give_up_s
        time.sleep(0.02)  # another process writes it


def test_a_spool_that_cannot_be_is_one_line_at_the_start(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flags = ("--prediction-log", f"sqlite:///{tmp_path / 'log.db'}", "--prediction-log-spool", str(tmp_path / "file"))
    ended = run_to_end("--models", str(models), "--workers", "1", "--http-port", "0", *flags)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.match(
        r"error: --prediction-log: expected a folder .* name another one by --prediction-log-spool", lines[0]
    )


def test_a_url_that_cannot_be_is_one_line_at_the_start(models: Path) -> None:
    url = "mysql://user:hidden@host/name"
    ended = run_to_end("--models", str(models), "--workers", "1", "--http-port", "0", "--prediction-log", url)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.match(r"error: --prediction-log: expected .* received mysql://user:\*\*\*@host/name", lines[0])
    assert "hidden" not in ended.stderr
