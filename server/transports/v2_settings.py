"""What clients of the Open Inference Protocol may set while the server runs: traces and logs.

A trace is one log event with where a request's time went; every `trace_rate`-th request has one while `trace_level` is
TIMESTAMPS. Files are not written where a client says.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from server.errors import InvalidInput, Unavailable
from server.logs import log_level, set_log_level
from server.tensors import InferResponse

TRACE_DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "trace_level": ("OFF",),
    "trace_rate": ("1000",),
    "trace_count": ("-1",),
    "log_frequency": ("0",),
    "trace_file": ("",),
    "trace_mode": ("triton",),
}
_LEVELS: Final = ("OFF", "TIMESTAMPS")
_MAX_RATE: Final = 1 << 31
_FIXED_LOG: Final[Mapping[str, Any]] = {"log_file": "", "log_format": "ISO8601"}

log = structlog.get_logger()


class V2Settings:
    """Traces of each model, and the log's level.

    Args:
        alone: Whether this process is the whole server; where it is one of several workers, a setting would hold for
            whoever happens to be asked next.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._traces: dict[str, dict[str, tuple[str, ...]]] = {}  # by model; "" for all others
        self._seen: dict[str, int] = {}
        self._left: dict[str, int] = {}

    # ---- traces ----

    def trace(self, model: str) -> dict[str, list[str]]:
        """The settings that hold for a model.

        Args:
            model: Its name; empty for the ones of all models that have none of their own.
        """
        return {key: list(value) for key, value in self._trace_of(model).items()}

    def set_trace(self, model: str, changes: Mapping[str, Sequence[str]]) -> None:
        """Changes traces.

        Args:
            model: Whose; empty for all models that have none of their own.
            changes: Values by setting; no value sets one back.

        Raises:
            InvalidInput: A setting is unknown, or cannot be so here.
            Unavailable: There are several workers.
        """
        if not changes:
            return
        self._only_alone()
        settings = dict(self._trace_of(model))
        back = TRACE_DEFAULTS if not model else self._trace_of("")
        for key, value in changes.items():
            if key not in TRACE_DEFAULTS:
                raise InvalidInput(f"expected one of {', '.join(TRACE_DEFAULTS)}, received {key!r:.40}")
            settings[key] = _check_trace(key, tuple(value)) if value else back[key]
        self._traces[model] = settings
        self._seen.pop(model, None)
        self._left[model] = int(settings["trace_count"][0])

    def note(self, response: InferResponse, request_id: str) -> None:
        """Traces a request if it is its turn.

        Args:
            response: Its answer.
            request_id: The name it goes by in the log.
        """
        if not self._traces:
            return
        key = response.model if response.model in self._traces else ""
        settings = self._trace_of(key)
        if settings["trace_level"] == ("OFF",) or not self._left.get(key, -1):
            return
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        if seen % int(settings["trace_rate"][0]):
            return
        self._left[key] = max(self._left.get(key, -1) - 1, -1)
        timing = response.timing
        log.info(
            "trace",
            request_id=request_id,
            model=response.model,
            version=response.version,
            decode_us=timing.decode_us,
            queue_us=timing.queue_us,
            infer_us=timing.infer_us,
        )

    def _trace_of(self, model: str) -> Mapping[str, tuple[str, ...]]:
        return self._traces.get(model) or self._traces.get("") or TRACE_DEFAULTS

    # ---- the log ----

    def logs(self) -> dict[str, Any]:
        """The log's settings in Triton's terms."""
        level = log_level()
        return {
            **_FIXED_LOG,
            "log_info": level in ("debug", "info"),
            "log_warning": level != "error",
            "log_error": True,
            "log_verbose_level": int(level == "debug"),
        }

    def set_logs(self, changes: Mapping[str, Any]) -> None:
        """Changes what is logged.

        Args:
            changes: Values by setting. The server has one level, so that warnings go only where notes are gone too.

        Raises:
            InvalidInput: A setting is unknown, or cannot be so here.
            Unavailable: There are several workers.
        """
        if not changes:
            return
        self._only_alone()
        wanted = self.logs()
        for key, value in changes.items():
            if key not in wanted:
                raise InvalidInput(f"expected one of {', '.join(wanted)}, received {key!r:.40}")
            kind = {bool: "true or false", int: "a whole number", str: "text"}
            if type(value) is not type(wanted[key]):
                raise InvalidInput(f"expected {key} as {kind[type(wanted[key])]}, received {value!r:.40}")
            if key in _FIXED_LOG and value != wanted[key]:
                raise InvalidInput(f"{key} is the server's to choose, see --log-format; received {value!r:.40}")
            wanted[key] = value
        if not wanted["log_error"]:
            raise InvalidInput("errors are always logged; expected log_error true, received false")
        set_log_level(_level(wanted))

    def _only_alone(self) -> None:
        if not self._alone:
            raise Unavailable("with several workers this would hold for one of them only; start with --workers 1")


def _level(wanted: Mapping[str, Any]) -> str:
    if wanted["log_verbose_level"] > 0:
        return "debug"
    if wanted["log_info"]:
        return "info"
    return "warning" if wanted["log_warning"] else "error"


def _check_trace(key: str, value: tuple[str, ...]) -> tuple[str, ...]:
    text = value[0]
    if key == "trace_level":
        right = len(value) == 1 and text in _LEVELS
        expected = " or ".join(_LEVELS)
    elif key == "trace_rate":
        right = len(value) == 1 and text.isascii() and text.isdigit() and 0 < int(text[:12]) < _MAX_RATE
        expected = "a whole number above 0"
    elif key == "trace_count":
        right = text == "-1" or (text.isascii() and text.isdigit() and int(text[:12]) < _MAX_RATE)
        expected = "a whole number, or -1 for no end"
    else:
        right = value == TRACE_DEFAULTS[key]
        expected = f"{TRACE_DEFAULTS[key][0]!r}, traces go to the server's log"
    if not right or len(value) != 1:
        raise InvalidInput(f"expected {key} as {expected}, received {', '.join(value)[:40]!r}")
    return value
