"""What Triton's Python backend runs: a process for each instance, batches as Triton's dynamic batcher made them."""

from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # Triton brings it

from benchmarks.peers.classifier import Classifier


class TritonPythonModel:
    """The backend's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model."""
        del args
        self._classifier = Classifier()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Runs all rows of all requests at once."""
        tensors = [triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        parts = [self._rows(tensor) for tensor in tensors]
        found = self._classifier.probabilities(np.concatenate(parts))
        pieces = np.split(found, np.cumsum([len(part) for part in parts])[:-1])
        return [triton.InferenceResponse([triton.Tensor("probabilities", piece)]) for piece in pieces]

    def _rows(self, tensor: np.ndarray) -> np.ndarray:
        if tensor.dtype != object:
            return tensor
        return np.stack([self._classifier.read(body) for body in tensor.ravel()])
