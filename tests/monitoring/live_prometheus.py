"""`make monitoring-test`: Debian's Prometheus scrapes a real server, alerts fire and clear, the dashboard is answered.

Not among the tests that run by themselves: it needs Debian's packages prometheus and prometheus-alertmanager, and two
minutes.
"""

import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.monitoring.dashboard import queries
from tests.monitoring.stack import WINDOW, Prometheus, run_prometheus
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Answer, Http, form
from tests.wire.metrics_page import free_port
from tests.wire.server_process import ServerProcess, run_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# A lone picture waits so long for company and is slow; four fill a batch and are quick.
SLOW_MS, BATCH_ROWS = 700, 4
FEEDBACK_ROWS = 200
# Without GPUs, and while nothing is amiss, these have nothing to show.
SILENT_PANELS = frozenset({"Utilization", "Memory", "Power and temperature", "Alerts", "New versions"})
FLAGS = (
    *("--workers", "2", "--max-delay-ms", str(SLOW_MS), "--max-batch-rows", str(BATCH_ROWS)),
    *("--latency-budget-ms", "5000", "--response-cache-bytes", "1000000", "--drift-window-rows", str(FEEDBACK_ROWS)),
)


@dataclass
class Live:
    """A server that Prometheus scrapes."""

    prometheus: Prometheus
    models: Path
    folder: Path
    metrics_port: int
    http_port: int = 0

    @contextmanager
    def serving(self) -> Iterator[ServerProcess]:
        log = f"sqlite:///{self.folder / 'predictions.db'}"
        flags = ("--metrics-port", str(self.metrics_port), "--prediction-log", log)
        with run_server(self.models, self.folder / "server", *FLAGS, *flags) as server:
            self.http_port = server.http_port
            yield server
        (self.folder / "server" / "ports.json").unlink()

    def post(self, path: str, body: object, kind: str, **headers: str) -> Answer:
        with Http(self.http_port) as http:
            return http.predict(body, kind, path, **headers)

    def quick(self) -> Answer:
        """A request that fills a batch: new pictures each time, so that no answer is remembered."""
        body, kind = form(*(("file", "a.png", noise()) for _ in range(BATCH_ROWS)))
        return self.post("/predict", body, kind)

    def slow(self) -> Answer:
        return self.post("/predict", noise(), "image/png")

    def shadowed(self) -> Answer:
        return self.post("/predict/shadowed", noise(), "image/png")

    def looked_at(self, *levels: int) -> Answer:
        """Pictures of about these brightnesses, for the model that has a reference."""
        pictures = [noise(level - 5, level + 5) for level in levels * BATCH_ROWS]
        body, kind = form(*(("file", "a.png", one) for one in pictures))
        return self.post("/predict/watched", body, kind)

    def late(self) -> Answer:
        """A request whose deadline has passed before anything can be done."""
        return self.post("/predict", noise(), "image/png", X_Latency_Budget_Ms="0.001")


def noise(low: int = 0, high: int = 255) -> bytes:
    """A picture that is not remembered: there was none like it."""
    pixels = np.random.default_rng().integers(low, high, (8, 8), np.uint8, endpoint=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def repeating(*asks: Callable[[], Answer]) -> Iterator[None]:
    """Each of `asks` again and again, in a thread of its own."""
    stop = threading.Event()

    def ask_on(ask: Callable[[], Answer]) -> None:
        while not stop.wait(0.02):
            ask()

    threads = [threading.Thread(target=ask_on, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    models = folder / "models"
    write_bundle(models, "grey", 1)
    for version in (1, 2):
        write_bundle(models, "shadowed", version)
    add_reference(write_bundle(models, "watched", 1))
    policy = {"versions": "all", "default": 1, "shadow": {"version": 2, "percent": 100}}
    (models / "shadowed" / "policy.json").write_text(json.dumps(policy))
    port = free_port()
    (folder / "prometheus").mkdir()
    with run_prometheus(folder / "prometheus", port) as prometheus:
        yield Live(prometheus, models, folder, port)


def add_reference(bundle: Path) -> None:
    """What export says of the hold-out rows: as many dark ones as dim and bright ones."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    brightness = {"edges": [85, 170], "counts": ["100", "100", "100"]}
    manifest["reference"] = {"rows": "300", "classes": ["100", "100", "100"], "brightness": brightness}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_server_that_is_not_there_and_then_is(live: Live) -> None:
    live.prometheus.wait_fires("ShoalDown")
    with live.serving():
        live.prometheus.wait_clears("ShoalDown")


def test_slow_requests_and_quick_ones_again(live: Live) -> None:
    with live.serving():
        with repeating(live.slow, live.slow):
            live.prometheus.wait_fires("ShoalLatencyHigh")
        with repeating(live.quick):
            live.prometheus.wait_clears("ShoalLatencyHigh")


def test_requests_that_fail_and_then_do_not(live: Live) -> None:
    with live.serving(), repeating(live.quick):
        with repeating(live.late):
            live.prometheus.wait_fires("ShoalErrors")
        live.prometheus.wait_clears("ShoalErrors")


def test_accuracy_that_falls_and_recovers(live: Live) -> None:
    with live.serving():
        ids = [bright(live) for _ in range(FEEDBACK_ROWS)]
        live.prometheus.wait(lambda: written(live) >= len(ids), "the predictions are in the log")
        feedback(live, ids, "dark")
        live.prometheus.wait_fires("ShoalAccuracyDown")
        feedback(live, ids, "bright")
        live.prometheus.wait_clears("ShoalAccuracyDown")


def bright(live: Live) -> str:
    """The id of a request for a picture that is surely bright."""
    body, kind = form(*(("file", "a.png", picture(250)) for _ in range(BATCH_ROWS)))
    return str(live.post("/predict", body, kind).headers["X-Request-Id"])


def written(live: Live) -> float:
    found = live.prometheus.query("sum(shoal_prediction_log_written_total)")
    return float(found[0]["value"][1]) if found else 0


def feedback(live: Live, ids: list[str], label: str) -> None:
    answer = live.post("/feedback", json.dumps([{"request_id": i, "label": label} for i in ids]).encode(), "")
    assert answer.json["accepted"] == len(ids)


def test_pictures_that_get_brighter_and_are_as_before(live: Live) -> None:
    with live.serving():
        with repeating(lambda: live.looked_at(250)):
            live.prometheus.wait_fires("ShoalDrift")
            live.prometheus.wait(lambda: drifted(live) == {"classes", "brightness"}, "both features fire")
        with repeating(lambda: live.looked_at(10, 120, 250)):
            live.prometheus.wait_clears("ShoalDrift")


def drifted(live: Live) -> set[str]:
    firing = live.prometheus.query('ALERTS{alertname="ShoalDrift",alertstate="firing"}')
    return {series["metric"]["feature"] for series in firing}


@contextmanager
def broken_version(live: Live) -> Iterator[None]:
    """A version on disk that cannot be loaded."""
    partial, final = live.models / "grey" / ".9.partial", live.models / "grey" / "9"
    shutil.copytree(live.models / "grey" / "1", partial)
    (partial / "model.onnx").write_bytes(b"no graph")
    partial.rename(final)
    yield
    shutil.rmtree(final)


def test_a_version_that_is_refused_until_it_is_removed(live: Live) -> None:
    with live.serving():
        with broken_version(live):
            live.prometheus.wait_fires("ShoalReloadFailed")
        live.prometheus.wait_clears("ShoalReloadFailed")


def test_every_query_of_the_dashboard_is_answered(live: Live) -> None:
    with (
        live.serving(),
        broken_version(live),
        repeating(live.quick, live.shadowed, lambda: live.looked_at(10, 120, 250)),
    ):
        one = bright(live)
        live.prometheus.wait(lambda: written(live) > 0, "the prediction is in the log")
        feedback(live, [one], "bright")
        every = set(queries(WINDOW))
        unanswered = {query for query in every if query.panel not in SILENT_PANELS}
        assert {query.panel for query in every} >= SILENT_PANELS

        def answered() -> bool:
            unanswered.difference_update([q for q in unanswered if live.prometheus.query(q.expression)])
            return not unanswered

        live.prometheus.wait(answered, lambda: f"every query is answered, all but {unanswered}")
        for query in every:
            live.prometheus.query(query.expression)  # even what has nothing to show is no error
