import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from server.logs import hide_secrets, set_up_logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_has_the_event_its_keys_and_the_requests_id() -> None:
    stream = io.StringIO()
    set_up_logs("info", "json", stream)
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger().warning("model failed", model="grey")
    entry = json.loads(stream.getvalue())
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "model failed", "level": "warning", "model": "grey", "request_id": "r-1"}


def test_levels_below_are_dropped() -> None:
    stream = io.StringIO()
    set_up_logs("warning", "json", stream)
    structlog.get_logger().info("quiet")
    structlog.get_logger().error("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_an_exception_is_one_line_of_json() -> None:
    stream = io.StringIO()
    set_up_logs("info", "json", stream)
    structlog.get_logger().error("request failed", exc_info=KeyError("gone"))
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "KeyError"


def test_libraries_are_heard_from_warnings_on_in_the_same_form() -> None:
    stream = io.StringIO()
    set_up_logs("debug", "json", stream)
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "slow callback"
    assert json.loads(line)["level"] == "warning"


@pytest.mark.parametrize(
    ("style", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("console", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_people_get_text_and_machines_json(style: str, stream: io.StringIO, *, is_json: bool) -> None:
    set_up_logs("info", style, stream)
    structlog.get_logger().info("stopped", grace_s=1)
    assert stream.getvalue().startswith("{") == is_json
    assert "stopped" in stream.getvalue()


def test_standard_error_is_where_logs_go_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    structlog.get_logger().info("stopped")
    captured = capsys.readouterr()
    assert "stopped" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("cannot reach postgresql://shoal:s3cret-pw@db/log", "s3cret-pw"),
        ("Authorization: Bearer eyJhbGciOi.eyJzdWIi.c2ln", "eyJhbGciOi.eyJzdWIi.c2ln"),
        ("authorization='Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
        ("X-API-Key: shoal_9f8e7d6c5b", "shoal_9f8e7d6c5b"),
        ("{'password': 'hunter22', 'user': 'a'}", "hunter22"),
        ("?access_token=abcdef123456&x=1", "abcdef123456"),
    ],
)
@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("way", ["value", "event", "exception", "library"])
def test_what_looks_like_a_secret_is_not_written(said: str, secret: str, style: str, way: str) -> None:
    stream = io.StringIO()
    set_up_logs("info", style, stream)
    if way == "library":
        logging.getLogger("asyncio").error(said)
    elif way == "exception":
        structlog.get_logger().error("request failed", exc_info=ValueError(said))
    elif way == "event":
        structlog.get_logger().error(said)
    else:
        structlog.get_logger().error("refused", reason=said)
    assert secret not in stream.getvalue()
    assert "***" in stream.getvalue()
    if style == "json":
        json.loads(stream.getvalue())


@pytest.mark.parametrize(
    "said",
    [
        '{"event": "model ready", "version": 3, "duration_s": 1.4}',
        '{"reason": "the token has expired", "for": "10:30:05"}',
        '{"url": "http://127.0.0.1:8000/predict?model=pets"}',
        '{"reason": "expected a token: Bearer or X-API-Key"}',
        '{"tokens": 3, "key_id": "2026-11-key-one"}',
    ],
)
def test_what_is_none_is_left_alone(said: str) -> None:
    assert hide_secrets(None, "", said) == said
