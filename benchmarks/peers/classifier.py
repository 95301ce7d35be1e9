"""What every peer does with a picture: Pillow, one ONNX Runtime session with one thread, the best class."""

import io
import os

import numpy as np
import onnxruntime
from PIL import Image


class Classifier:
    """The model named by PEER_GRAPH; its input is `uint8[rows, height, width, channels]`."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.environ["PEER_GRAPH"], options, ["CPUExecutionProvider"])
        entry = self._session.get_inputs()[0]
        self._name = entry.name
        _, self._height, self._width, self._channels = entry.shape

    def decode(self, data: bytes) -> np.ndarray:
        """A picture as one row of pixels."""
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.convert("L" if self._channels == 1 else "RGB")
        if pixels.size != (self._width, self._height):
            pixels = pixels.resize((self._width, self._height), Image.Resampling.BILINEAR)
        return np.asarray(pixels).reshape(self._height, self._width, self._channels)

    def classify(self, rows: list[np.ndarray]) -> list[dict[str, float]]:
        """The best class of each row, and its probability."""
        probabilities = self._session.run(None, {self._name: np.stack(rows)})[0]
        best = probabilities.argmax(axis=1)
        return [
            {"class": int(index), "probability": float(row[index])}
            for index, row in zip(best, probabilities, strict=True)
        ]
