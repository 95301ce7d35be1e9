"""What an answer of a candidate costs in production: exported with untrained weights, quantized, timed.

Training knows nothing of the export's code, so `python -m export cost` does it in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from training.errors import TrainingError

_TIMEOUT_S: Final = 900.0


def us_per_image(model: Any, folder: Path) -> float:
    """Measures an uncompiled Keras model in int8 on one thread of this machine.

    Args:
        model: Pixels in, probabilities out, in float32; its weights do not matter.
        folder: For its file, which is removed again.

    Returns:
        Microseconds of CPU time per image.

    Raises:
        TrainingError: It cannot be exported.
    """
    file = folder / "candidate.keras"
    try:
        model.save(file)
        return _measured(file)
    finally:
        file.unlink(missing_ok=True)


def _measured(file: Path) -> float:
    command = [sys.executable, "-m", "export", "cost", "--model", str(file), "--json"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        finished = subprocess.run(  # noqa: S603 (our own command)
            command, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        if finished.returncode == 0:
            return float(json.loads(finished.stdout)["us_per_image"])
        reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        reason = str(error)
    raise TrainingError(f"expected a model that can be exported and timed, received one that cannot: {reason}")
