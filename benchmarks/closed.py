"""A closed loop in any column, with the CPU time of the server's processes for each request."""

from dataclasses import dataclass
from typing import Any, Final

from benchmarks.h2load import STREAM, UNARY, Calls, load, weigh
from benchmarks.http_load import Question, closed_loop
from benchmarks.payloads import GRPC_COLUMNS, OK, STREAMED, Target, messages, questions
from benchmarks.pictures import Pictures
from benchmarks.processes import family_cpu_s

GRPC_CONNECTIONS: Final = 8  # gRPC clients share connections; more under way is more calls on each

Asked = list[Question] | Calls


@dataclass(frozen=True)
class Taken:
    """One measurement.

    Args:
        per_s: Right answers in a second.
        cpu_us: CPU time of the server's processes for each, in microseconds.
    """

    per_s: float
    cpu_us: float


async def prepare(target: Target, pictures: Pictures, column: str) -> Asked:
    """What will be asked in a column, with what the idle server answers."""
    if column not in GRPC_COLUMNS:
        return await questions(target, pictures, column)
    path = STREAM if column == "stream" else UNARY
    return await weigh(target.grpc, path, messages(target, pictures, column))


async def take(target: Target, asked: Asked, under_way: int, seconds: float) -> Taken:
    """Keeps so many requests under way for so long.

    Raises:
        RuntimeError: An answer was not right.
    """
    before_s = family_cpu_s(target.pid)
    if isinstance(asked, Calls):
        images, per_s = await _grpc(target, asked, under_way, seconds)
    else:
        images, per_s = await right_answers(target.http, asked, under_way, seconds)
    return Taken(per_s, (family_cpu_s(target.pid) - before_s) / images * 1e6)


async def right_answers(url: str, asked: list[Question], under_way: int, seconds: float) -> tuple[int, float]:
    """Keeps so many HTTP requests under way for so long.

    Args:
        url: The server.
        asked: In turn.
        under_way: Connections.
        seconds: How long new ones are sent.

    Returns:
        How many were answered, and how many in a second until the last answer.

    Raises:
        RuntimeError: An answer was not right.
    """
    tally = await closed_loop(url, asked, connections=under_way, seconds=seconds)
    summary: dict[str, Any] = tally.summary()
    if set(summary["by_status"]) != {str(OK)} or summary["wrong"]:
        raise RuntimeError(f"expected right answers only, received {summary['by_status']}, {summary['wrong']} wrong")
    # Not by when they were sent: of a slow server each connection may have one answer, and all were asked at once.
    return summary["requests"], summary["requests"] / tally.elapsed_s


async def _grpc(target: Target, calls: Calls, under_way: int, seconds: float) -> tuple[int, float]:
    connections = min(GRPC_CONNECTIONS, under_way)
    in_flight = max(1, under_way // connections)
    if len(calls.messages) > 1:  # streams: so many messages of each are under way already
        connections, in_flight = max(1, under_way // STREAMED), 1
    loaded = await load(target.grpc, calls, connections=connections, in_flight=in_flight, seconds=seconds)
    images = loaded.calls * len(calls.messages)
    return images, images / loaded.seconds
