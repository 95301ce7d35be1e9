"""The model behind MLServer: adaptive batches of `PEER_BATCH` at most, a worker process for each core."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel  # type: ignore[import-not-found]  # not installed where types are checked
from mlserver.cli import main as mlserver_cli  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]

from benchmarks.peers.classifier import Classifier


class Model(MLModel):  # type: ignore[misc]  # not installed where types are checked
    """A runtime of MLServer's."""

    async def load(self) -> bool:
        """Loads the model in a worker."""
        self._classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Runs the rows of what MLServer's batching has put together."""
        tensor = payload.inputs[0]
        if tensor.datatype == "BYTES":
            rows = np.stack([self._classifier.read(_bytes(element)) for element in tensor.data.root])
        else:
            rows = NumpyCodec.decode_input(tensor).astype(np.uint8, copy=False)
        output = NumpyCodec.encode_output("probabilities", self._classifier.probabilities(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])


def _bytes(element: str | bytes) -> bytes:
    import base64  # noqa: PLC0415

    return base64.b64decode(element) if isinstance(element, str) else element


def main() -> None:
    """Writes MLServer's two files of settings and starts it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    arguments = parser.parse_args()
    server = {
        "host": "127.0.0.1",
        "http_port": arguments.port,
        "grpc_port": arguments.grpc_port,
        "parallel_workers": len(os.sched_getaffinity(0)),
        "metrics_endpoint": None,
        "debug": False,
        "use_structured_logging": False,
    }
    model = {
        "name": "classifier",
        "implementation": "benchmarks.peers.mlserver_server.Model",
        "max_batch_size": int(os.environ["PEER_BATCH"]),
        "max_batch_time": int(os.environ["PEER_WAIT_MS"]) / 1000,
    }
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("PEER_FOLDER")))
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    sys.argv = ["mlserver", "start", str(folder)]
    mlserver_cli()


if __name__ == "__main__":
    main()
