"""The model behind mosec: `PEER_BATCH` pictures at most and `PEER_WAIT_MS` for them, a process for each core."""

import os
from typing import Any

import msgspec  # type: ignore[import-not-found]  # not installed where types are checked
import numpy as np
from mosec import Server, Worker

from benchmarks.peers.classifier import Classifier


class Classify(Worker):  # type: ignore[misc]  # not installed where types are checked
    """One stage: decode, run, answer JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._classifier = Classifier()

    def deserialize(self, data: bytes) -> Any:
        """Decodes a request's body."""
        return self._classifier.read(data)

    def forward(self, data: list[Any]) -> list[Any]:
        """Runs a batch."""
        return self._classifier.classify(data)


class ClassifyMsgpack(Classify):
    """The same with msgpack both ways, which is mosec's way for tensors."""

    def deserialize(self, data: bytes) -> Any:
        """Reads `{"shape": …, "data": bytes}`."""
        tensor = msgspec.msgpack.decode(data)
        return np.frombuffer(tensor["data"], np.uint8).reshape(tensor["shape"])

    def serialize(self, data: Any) -> bytes:
        """Writes an answer."""
        encoded: bytes = msgspec.msgpack.encode(data)
        return encoded


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        ClassifyMsgpack if os.environ["PEER_PAYLOAD"] == "binary" else Classify,
        num=len(os.sched_getaffinity(0)),
        max_batch_size=int(os.environ["PEER_BATCH"]),
        max_wait_time=int(os.environ["PEER_WAIT_MS"]),
    )
    server.run()
