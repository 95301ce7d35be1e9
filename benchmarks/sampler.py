"""What runs inside a server whose stages are measured: with each few ms of CPU time, the Python stack that used them.

    CPU time of the process ──SIGPROF to the thread that runs──▶ its Python frames, written in C ──▶ FOLDER/PID

The timer counts CPU time, the kernel's included, so what waits is never seen, on however few cores. A profiler that
looks from outside at fixed moments takes threads for running that wait for a core, or that it has woken by stopping the
process. `faulthandler` needs neither the interpreter's lock nor the thread's help, so C code is seen as well, as the
Python function that called it. `benchmarks.stages` copies this file beside a sitecustomize.py that starts it.
"""

import atexit
import faulthandler
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PERIOD_S: Final = 0.004  # no shorter than a tick of a kernel with 250 of them a second
SITE: Final = "from stage_sampler import start\n\nstart({folder!r})\n"  # every process of the server executes it


def install(folder: Path) -> str:
    """Writes what makes a Python process sample itself.

    Args:
        folder: An empty one; samples come into its `samples`.

    Returns:
        A PYTHONPATH.
    """
    (folder / "samples").mkdir()
    (folder / "stage_sampler.py").write_text(Path(__file__).read_text())
    (folder / "sitecustomize.py").write_text(SITE.format(folder=str(folder / "samples")))
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def start(folder: str) -> None:
    """Samples this process, and those that are forked from it.

    Args:
        folder: Where the samples go, a file for each process.
    """
    _begin(folder)
    os.register_at_fork(after_in_child=lambda: _begin(folder))
    # Without a handler, which the interpreter takes away as it ends, the signal would end the process.
    atexit.register(signal.setitimer, signal.ITIMER_PROF, 0)


def _begin(folder: str) -> None:
    with (Path(folder) / str(os.getpid())).open("ab", buffering=0) as samples:
        descriptor = os.dup(samples.fileno())
    faulthandler.register(signal.SIGPROF, descriptor, all_threads=False)
    signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)


class Samples:
    """What the processes of a server have written.

    Args:
        folder: Given to `install`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "samples"
        self._read_bytes: dict[Path, int] = {}

    def new(self) -> str:
        """What came since the last call."""
        return "".join(self._new())

    def _new(self) -> Iterator[str]:
        for path in sorted(self._folder.iterdir()):
            content = path.read_bytes()
            yield content[self._read_bytes.get(path, 0) :].decode(errors="replace")
            self._read_bytes[path] = len(content)
