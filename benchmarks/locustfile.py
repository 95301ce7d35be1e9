"""Locust users of the plain interfaces. The run fails when a request fails or any p99 reaches 200 ms.

    locust -f benchmarks/locustfile.py --headless -u 100 -r 50 -t 30s --host http://127.0.0.1:8000

`python -m benchmarks locust` starts a server, runs HTTP and gRPC users one after the other and prints both tables.
"""

import itertools
import os
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import orjson
from locust import FastHttpUser, User, constant, events, task

from benchmarks.grpc_raw import RawClient
from benchmarks.pictures import Pictures, golden_pictures, newest_bundle
from protos import classifier_pb2

BUDGET_MS: Final = 200
CLASSIFY: Final = "/shoal.v1.Classifier/Classify"
# What users of both protocols allow. Without it HTTP's would have the server's default budget, and be refused a few
# times in a hundred where gRPC's, whose deadline is 10 s, are answered.
TIMEOUT_S: Final = 10
PAUSE_S: Final = int(os.environ.get("SHOAL_BENCH_PAUSE_MS", "0")) / 1000


def _pictures() -> Pictures:
    models = Path(os.environ.get("SHOAL_BENCH_MODELS", "models"))
    return golden_pictures(newest_bundle(models, os.environ.get("SHOAL_BENCH_MODEL", "")))


PICTURES: Final = _pictures()


class HttpUser(FastHttpUser):
    """Uploads one picture after the other, and sends some as JSON numbers."""

    wait_time = constant(PAUSE_S)

    def on_start(self) -> None:
        """Begins at a picture of its own, and prepares one body of numbers."""
        self.files = itertools.cycle(PICTURES.files[id(self) % len(PICTURES.files) :] + PICTURES.files)
        height, width, channels = PICTURES.shape
        pixels = [(7 * i) % 256 for i in range(height * width * channels)]
        self.numbers = orjson.dumps({"data": pixels, "scale": "0-255"})

    @task(3)
    def upload(self) -> None:
        """One encoded picture as the body."""
        self._post("/predict (upload)", next(self.files), "application/octet-stream")

    @task(1)
    def json_numbers(self) -> None:
        """One picture as JSON numbers."""
        self._post("/predict (json)", self.numbers, "application/json")

    def _post(self, name: str, body: bytes, content_type: str) -> None:
        headers = {"Content-Type": content_type, "X-Latency-Budget-Ms": str(1000 * TIMEOUT_S)}
        path = f"/predict/{PICTURES.model}"
        with self.client.post(path, data=body, headers=headers, name=name, catch_response=True) as response:
            if response.status_code != 200:  # noqa: PLR2004
                response.failure(f"{response.status_code}: {response.text}")
            elif len(response.json()["predictions"]) != 1:
                response.failure(f"expected one prediction, received {response.text}")


class GrpcUser(User):
    """Classifies one picture after the other; each user has a connection of its own.

    Not by grpcio's client, which keeps greenlets waiting for its few threads: see `RawClient`.
    """

    wait_time = constant(PAUSE_S)

    def on_start(self) -> None:
        """Connects, and begins at a picture of its own."""
        self._connect()
        self.files = itertools.cycle(PICTURES.files[id(self) % len(PICTURES.files) :] + PICTURES.files)

    def on_stop(self) -> None:
        """Closes the connection."""
        self.calls.close()

    @task
    def classify(self) -> None:
        """One encoded picture."""
        encoded = classifier_pb2.EncodedImages(images=[next(self.files)])
        request = classifier_pb2.ClassifyRequest(model=PICTURES.model, encoded=encoded, top_k=1)
        error: Exception | None = None
        started_s, data = perf_counter(), b""
        try:
            data = self.calls.call(request.SerializeToString())
            answer = classifier_pb2.ClassifyResponse.FromString(data)
            if len(answer.predictions) != 1:
                error = ValueError(f"expected one prediction, received {answer}")
        except OSError as failure:
            error = failure
        events.request.fire(
            request_type="grpc",
            name="Classify",
            response_time=(perf_counter() - started_s) * 1000,
            response_length=len(data),
            exception=error,
            context={},
        )
        if isinstance(error, OSError):
            self.calls.close()
            self._connect()

    def _connect(self) -> None:
        target = os.environ.get("SHOAL_BENCH_GRPC", "127.0.0.1:8001")
        self.calls = RawClient(target, CLASSIFY, TIMEOUT_S)


@events.quitting.add_listener
def _judge(environment: Any, **_: object) -> None:
    """Sets the exit code: 1 when anything failed or was too slow, or nothing ran."""
    entries = [entry for entry in environment.stats.entries.values() if entry.num_requests]
    late = [entry.name for entry in entries if entry.get_response_time_percentile(0.99) >= BUDGET_MS]
    if not entries or late or environment.stats.total.num_failures:
        failures = environment.stats.total.num_failures
        print(f"FAILED: {failures} failures; p99 of {BUDGET_MS} ms or more: {late or 'none'}")
        environment.process_exit_code = 1
