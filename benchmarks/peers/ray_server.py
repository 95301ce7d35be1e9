"""The model behind Ray Serve: batches of `PEER_BATCH` at most and `PEER_WAIT_MS` for them, a replica for each core."""

import argparse
import os
import signal
from typing import Any

import ray  # type: ignore[import-not-found]  # not installed where types are checked
from ray import serve
from starlette.requests import Request  # type: ignore[import-not-found]  # not installed where types are checked

from benchmarks.peers.classifier import Classifier

CORES = len(os.sched_getaffinity(0))


BATCH_ROWS = int(os.environ["PEER_BATCH"])
WAIT_S = int(os.environ["PEER_WAIT_MS"]) / 1000


@serve.deployment(num_replicas=CORES, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Classify:
    """A replica."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @serve.batch(max_batch_size=BATCH_ROWS, batch_wait_timeout_s=WAIT_S)  # type: ignore[untyped-decorator]
    async def _classify(self, bodies: list[bytes]) -> list[Any]:
        return self._classifier.classify([self._classifier.read(body) for body in bodies])

    async def __call__(self, request: Request) -> Any:
        """Classifies one body."""
        return await self._classify(await request.body())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": parser.parse_args().port, "request_timeout_s": 30})
    serve.run(Classify.bind(), route_prefix="/inference")  # type: ignore[attr-defined]  # the decorator's
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
