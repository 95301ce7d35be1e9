"""What an answer of a candidate costs in production: exported with untrained weights, quantized, timed.

    worker ──a path, a line──▶ python -m export cost --model - ──a line of JSON──▶ microseconds

Training knows nothing of the export's code, so a process of its own does it. It stays as long as its worker, because
most of the time of a first measurement goes into loading TensorFlow.
"""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from training.errors import TrainingError

_TIMEOUT_S: Final = 900.0
_END_S: Final = 10.0


class Meter:
    """Measures Keras models in int8 on one thread of this machine.

    Args:
        folder: For files, which are removed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def us_per_image(self, model: Any) -> float:
        """Measures an uncompiled Keras model.

        Args:
            model: Pixels in, probabilities out, in float32; its weights do not matter.

        Returns:
            Microseconds of CPU time per image.

        Raises:
            TrainingError: It cannot be exported.
        """
        file = self.folder / "candidate.keras"
        try:
            model.save(file)
            answer = self._answer(file)
        finally:
            file.unlink(missing_ok=True)
        if "us_per_image" in answer:
            return float(answer["us_per_image"])
        raise TrainingError(
            f"expected a model that can be exported and timed, received one that cannot: {answer['error']}"
        )

    def close(self) -> None:
        """Ends the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with process:  # closes the pipes, which ends it
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _answer(self, file: Path) -> dict[str, Any]:
        process = self._started()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("expected pipes to the process, found none")
        try:
            process.stdin.write(f"{file.absolute()}\n".encode())
            readable, _, _ = select.select([process.stdout], [], [], _TIMEOUT_S)
            line = process.stdout.readline() if readable else b""
        except BrokenPipeError:
            line = b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.close()  # the next candidate gets a new one
        return {"error": f"no answer from `python -m export cost` (exit code {process.returncode})"}

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "export", "cost", "--model", "-"],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # what a process that has ended did not take would be written again when the pipe is closed
            )
        return self._process
