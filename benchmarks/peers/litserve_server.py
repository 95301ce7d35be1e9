"""The model behind LitServe: `PEER_BATCH` rows at most and `PEER_WAIT_MS` for them, a process for each core."""

import argparse
import os
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found]  # not installed where types are checked
from fastapi import Body

from benchmarks.peers.classifier import Classifier


class Classify(litserve.LitAPI):  # type: ignore[misc]  # not installed where types are checked
    """Decodes in the worker, in batches."""

    def setup(self, device: str) -> None:
        """Loads the model in a worker."""
        del device
        self._classifier = Classifier()

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Any:
        """Reads a body, which LitServe hands over from the process that listens."""
        return self._classifier.read(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Left as a list: `classify` stacks."""
        return inputs

    def predict(self, x: Any) -> Any:
        """Runs a batch, or one row where there are no batches."""
        return self._classifier.classify(x) if isinstance(x, list) else self._classifier.classify([x])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """An answer for each."""
        return output

    def encode_response(self, output: Any) -> Any:
        """As JSON."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    api = Classify(
        max_batch_size=int(os.environ["PEER_BATCH"]),
        batch_timeout=int(os.environ["PEER_WAIT_MS"]) / 1000,
        api_path="/inference",
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=len(os.sched_getaffinity(0)),
        fast_queue=True,  # a sixth less CPU time for a request than the queue of multiprocessing, its default
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)
