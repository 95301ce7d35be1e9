"""Entry point of `python -m training`: exit code 0, 2 for input that cannot be used, 130 after Ctrl-C."""

import os
import sys

from training.cli import run
from training.errors import TrainingError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> int:
    """Runs the command line.

    Returns:
        The exit code.
    """
    # Before Keras is imported: which backend, and no remarks of TensorFlow's about the processor.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        run(sys.argv[1:])
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
