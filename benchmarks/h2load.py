"""gRPC load by h2load (Debian: nghttp2-client), 10 µs of CPU a call, where grpcio's clients take more than servers do.

    ModelInferRequest ──framed──▶ a file ──h2load──▶ so many calls under way for so long ──▶ answers in a second

h2load does not read answers, so what comes back is weighed: every right answer to these requests has the same length.
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = "h2load"
UNARY: Final = "/inference.GRPCInferenceService/ModelInfer"
STREAM: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
_HEADERS: Final = ("content-type: application/grpc", "te: trailers")
_DONE: Final = re.compile(
    r"finished in (?P<took>[\d.]+)(?P<unit>us|ms|s|m),.*?requests: (?P<total>\d+) total.*?(?P<good>\d+) succeeded, "
    r"(?P<failed>\d+) failed, (?P<errored>\d+) errored.*?(?P<data>\d+)\) data",
    re.DOTALL,
)
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class NotReadyError(RuntimeError):
    """A server listens and does not know the model yet."""


@dataclass(frozen=True)
class Calls:
    """What to call, and how its right answer is known.

    Args:
        path: The method.
        messages: Serialized requests that one call sends: one, or several to a stream.
        answer_bytes: Length of the answers to one call, frames included; 0 where it is not known yet.
    """

    path: str
    messages: Sequence[bytes]
    answer_bytes: int = 0

    @property
    def body(self) -> bytes:
        """The call's body: each message behind its length."""
        return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in self.messages)


@dataclass(frozen=True)
class Loaded:
    """What a run of h2load did.

    Args:
        calls: Answered calls.
        seconds: How long it took.
        data_bytes: Length of all answers.
    """

    calls: int
    seconds: float
    data_bytes: int


async def load(target: str, calls: Calls, *, connections: int, in_flight: int, seconds: float) -> Loaded:
    """Keeps calls under way for so long.

    Args:
        target: `host:port`.
        calls: What to call.
        connections: TCP connections.
        in_flight: Calls under way on each.
        seconds: How long.

    Raises:
        FileNotFoundError: h2load is not installed.
        RuntimeError: A call failed, or the answers do not have the length of right ones.
    """
    loaded = await _run(target, calls, f"--duration={round(seconds * 1000)}ms", f"-c{connections}", f"-m{in_flight}")
    # The answers to what was under way at the end may be counted in bytes and not as calls.
    least, most = loaded.calls * calls.answer_bytes, (loaded.calls + connections * in_flight) * calls.answer_bytes
    if not least <= loaded.data_bytes <= most:
        raise RuntimeError(f"expected {least}..{most} bytes of right answers, received {loaded.data_bytes}")
    return loaded


async def weigh(target: str, path: str, messages: Sequence[bytes]) -> Calls:
    """Makes one call, and remembers how long its answer is.

    Raises:
        NotReadyError: The call was answered with an error: there was no message in the answer.
    """
    calls = Calls(path, messages)
    loaded = await _run(target, calls, "-n1", "-c1")
    if not loaded.data_bytes:
        raise NotReadyError(f"expected an answer from {path}, received an error; is the model's name right?")
    return Calls(path, messages, loaded.data_bytes)


async def _run(target: str, calls: Calls, *flags: str) -> Loaded:
    if shutil.which(PROGRAM) is None:
        raise FileNotFoundError(f"expected {PROGRAM} on the PATH: install it (Debian: apt-get install nghttp2-client)")
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(calls.body)
        headers = [word for header in _HEADERS for word in ("-H", header)]
        command = [PROGRAM, *flags, "-d", str(body), *headers, f"http://{target}{calls.path}"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = (await process.communicate())[0].decode()
    found = _DONE.search(said)
    if found is None or int(found["failed"]) or int(found["errored"]):
        raise RuntimeError(f"expected {PROGRAM} to end without failures, it said: {' '.join(said.split())[-600:]}")
    return Loaded(int(found["good"]), float(found["took"]) * _UNITS_S[found["unit"]], int(found["data"]))
