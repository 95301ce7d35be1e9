from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.errors import InvalidInput, Unavailable
from server.logs import log_level, set_log_level
from server.tensors import InferResponse, Timing
from server.transports.v2_settings import TRACE_DEFAULTS, V2Settings

ANSWER = InferResponse("pets", 3, "int8", {}, Timing(1, 2, 3))


@pytest.fixture
def settings() -> V2Settings:
    return V2Settings(alone=True)


@pytest.fixture
def level() -> Iterator[None]:
    before = log_level()
    yield
    set_log_level(before)


def traced(settings: V2Settings, count: int, answer: InferResponse = ANSWER) -> list[str]:
    with capture_logs() as logs:
        for number in range(count):
            settings.note(answer, str(number))
    return [entry["request_id"] for entry in logs]


def test_nothing_is_traced_until_it_is_asked_for(settings: V2Settings) -> None:
    assert settings.trace("pets") == {key: list(value) for key, value in TRACE_DEFAULTS.items()}
    assert traced(settings, 3) == []
    settings.set_trace("", {"trace_rate": ["1"]})
    assert traced(settings, 3) == []


def test_every_nth_request_is_traced_with_its_times(settings: V2Settings) -> None:
    settings.set_trace("", {"trace_level": ["TIMESTAMPS"], "trace_rate": ["2"]})
    assert traced(settings, 5) == ["1", "3"]
    with capture_logs() as logs:
        settings.note(ANSWER, "q")
    assert logs == [
        {
            "event": "trace",
            "log_level": "info",
            "request_id": "q",
            "model": "pets",
            "version": 3,
            "decode_us": 1,
            "queue_us": 2,
            "infer_us": 3,
        }
    ]


def test_a_count_ends_it(settings: V2Settings) -> None:
    settings.set_trace("", {"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"], "trace_count": ["2"]})
    assert traced(settings, 5) == ["0", "1"]
    settings.set_trace("", {"trace_count": ["1"]})
    assert traced(settings, 5) == ["0"]


def test_a_model_has_its_own_or_the_common_ones(settings: V2Settings) -> None:
    settings.set_trace("", {"trace_rate": ["5"]})
    settings.set_trace("pets", {"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]})
    assert traced(settings, 1) == ["0"]
    assert traced(settings, 5, InferResponse("other", 1, "int8", {})) == []
    settings.set_trace("pets", {"trace_rate": []})
    assert settings.trace("pets")["trace_rate"] == ["5"]
    settings.set_trace("", {"trace_rate": []})
    assert settings.trace("")["trace_rate"] == ["1000"]


@pytest.mark.parametrize(
    "changes",
    [
        {"trace_level": ["TENSORS"]},
        {"trace_level": ["OFF", "TIMESTAMPS"]},
        {"trace_rate": ["0"]},
        {"trace_rate": ["often"]},
        {"trace_count": ["-2"]},
        {"trace_file": ["/tmp/trace"]},
        {"trace_mode": ["opentelemetry"]},
        {"nothing": ["1"]},
    ],
)
def test_traces_that_cannot_be(settings: V2Settings, changes: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput):
        settings.set_trace("", changes)
    assert settings.trace("") == {key: list(value) for key, value in TRACE_DEFAULTS.items()}


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"log_verbose_level": 1}, "debug"),
        ({"log_info": False}, "warning"),
        ({"log_info": False, "log_warning": False}, "error"),
        ({"log_info": True, "log_error": True, "log_file": "", "log_format": "ISO8601"}, "info"),
        ({}, "info"),
    ],
)
def test_the_log_has_one_level(settings: V2Settings, changes: dict[str, Any], least: str) -> None:
    set_log_level("info")
    settings.set_logs(changes)
    assert log_level() == least
    shown = settings.logs()
    assert (shown["log_info"], shown["log_verbose_level"]) == (least in ("debug", "info"), int(least == "debug"))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(
    "changes",
    [{"log_error": False}, {"log_info": 1}, {"log_verbose_level": True}, {"log_file": "/tmp/x"}, {"nothing": True}],
)
def test_logs_that_cannot_be(settings: V2Settings, changes: dict[str, Any]) -> None:
    set_log_level("warning")
    with pytest.raises(InvalidInput):
        settings.set_logs(changes)
    assert log_level() == "warning"


def test_one_of_several_workers_changes_nothing_but_tells() -> None:
    settings = V2Settings(alone=False)
    with pytest.raises(Unavailable, match="--workers 1"):
        settings.set_trace("", {"trace_rate": ["1"]})
    with pytest.raises(Unavailable, match="--workers 1"):
        settings.set_logs({"log_info": True})
    settings.set_trace("", {})
    settings.set_logs({})
    assert settings.trace("")["trace_level"] == ["OFF"]
