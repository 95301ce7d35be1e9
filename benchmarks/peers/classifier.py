"""What every peer does with a request: one ONNX Runtime session with one thread, and the best class of a row.

PEER_GRAPH names the ONNX file, PEER_PAYLOAD what a body is:

    picture   an encoded picture, which Pillow decodes (PEER_DECODE=shoal: `server.images` does)
    json      {"data": rows of nested integers}
    binary    the bytes of one row
"""

import io
import os
from collections.abc import Callable

import numpy as np
import onnxruntime
import orjson
from PIL import Image


class Classifier:
    """The model; its input is `uint8[rows, height, width, channels]`."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.environ["PEER_GRAPH"], options, ["CPUExecutionProvider"])
        entry = self._session.get_inputs()[0]
        self._name = entry.name
        _, self._height, self._width, self._channels = entry.shape
        readers = {"picture": self._decoder(), "json": self._numbers, "binary": self._bytes}
        self.read: Callable[[bytes], np.ndarray] = readers[os.environ.get("PEER_PAYLOAD", "picture")]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one row."""
        return self._height, self._width, self._channels

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Runs a batch: `float32[rows, classes]`."""
        found: np.ndarray = self._session.run(None, {self._name: rows})[0]
        return found

    def classify(self, rows: list[np.ndarray]) -> list[dict[str, float]]:
        """The best class of each row, and its probability."""
        probabilities = self.probabilities(np.stack(rows))
        best = probabilities.argmax(axis=1)
        return [
            {"class": int(index), "probability": float(row[index])}
            for index, row in zip(best, probabilities, strict=True)
        ]

    def _decoder(self) -> Callable[[bytes], np.ndarray]:
        if os.environ.get("PEER_DECODE") != "shoal":
            return self._decode
        from server.images import ImageSpec, decode  # noqa: PLC0415  only to hold a peer to the same decoder

        spec = ImageSpec(*self.shape)
        return lambda body: decode(body, spec)

    def _decode(self, body: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(body)) as image:
            pixels = image.convert("L" if self._channels == 1 else "RGB")
        if pixels.size != (self._width, self._height):
            pixels = pixels.resize((self._width, self._height), Image.Resampling.BILINEAR)
        return np.asarray(pixels).reshape(self.shape)

    def _numbers(self, body: bytes) -> np.ndarray:
        return np.array(orjson.loads(body)["data"], np.uint8).reshape(self.shape)

    def _bytes(self, body: bytes) -> np.ndarray:
        return np.frombuffer(body, np.uint8).reshape(self.shape)
