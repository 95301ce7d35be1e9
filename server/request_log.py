"""Single requests that are worth a line of the log: those that the model failed, and slow ones, by their ids.

    a request is over ──failed by the model? slower than --log-slow-ms?──▶ one line, at most 10 a second

What was answered in time is counted and not logged. Under an overload every request can be slow: what is over the limit
is counted and told with the next line.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from server.errors import InferenceFailed
from server.tensors import InferRequest, Timing
from server.tracing import caller_trace

LINES_PER_S: Final = 10

log = structlog.get_logger()


class RequestLog:
    """Writes what is worth it.

    Args:
        slow_s: A request that took longer is slow, in seconds.
        clock: Monotonic seconds.
    """

    def __init__(self, slow_s: float = float("inf"), clock: Callable[[], float] = time.monotonic) -> None:
        self._slow_s = slow_s
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._unsaid = 0

    def failed(self, error: BaseException, request: InferRequest, model: str, version: int) -> None:
        """Takes in a request that was not answered; logs it where the model is to blame.

        Errors that nobody foresaw are logged where they are told to the caller; every other one is the caller's, or a
        refusal, and counted.

        Args:
            error: Why.
            request: The request.
            model: The model that was chosen.
            version: Its version.
        """
        if isinstance(error, InferenceFailed):
            self._say(log.error, "inference failed", request, model, version, reason=str(error))

    def finished(
        self, request: InferRequest, model: str, version: int, outcome: str, took_s: float, timing: Timing | None
    ) -> None:
        """Takes in a request that is over; logs it where it was slow.

        Args:
            request: The request.
            model: The model that was chosen; empty where none was.
            version: Its version, or 0.
            outcome: As `Metrics.record` counts it.
            took_s: How long it took, in seconds.
            timing: Its stages, where it was answered.
        """
        if took_s < self._slow_s:
            return
        stages = {} if timing is None else _spell(timing)
        self._say(
            log.warning, "slow request", request, model, version, outcome=outcome, took_ms=_ms(took_s * 1e6), **stages
        )

    def _say(
        self, say: Callable[..., Any], event: str, request: InferRequest, model: str, version: int, **more: Any
    ) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES_PER_S:
            self._unsaid += 1
            return
        self._lines += 1
        if self._unsaid:
            more["unsaid"], self._unsaid = self._unsaid, 0
        trace = caller_trace()
        if trace:
            more["trace_id"] = trace
        say(event, request_id=request.request_id, protocol=request.protocol, model=model, version=version, **more)


def _spell(timing: Timing) -> dict[str, float]:
    return {
        "decode_ms": _ms(timing.decode_us),
        "queue_ms": _ms(timing.queue_us),
        "infer_ms": _ms(timing.infer_us),
    }


def _ms(us: float) -> float:
    return round(us / 1e3, 3)
