"""Logging, set up once at the entry point: event names with keys, as JSON for machines or coloured text for people.

Answered requests are not logged; metrics count them. Where a request is logged its id is there, as `request_id`:
those that failed for a reason nobody foresaw, those that the model failed, and slow ones (`server.request_log`).

Whatever the code says, what looks like a secret is not written: `hide_secrets` reads each line last.
"""

import logging
import re
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_WRAPPERS: Final = {number: structlog.make_filtering_bound_logger(number) for number in _LEVELS.values()}

# What follows a password's place in a URL, a token's in a header, and a name that tells of a secret, as JSON, Python or
# a console line has them.
_SECRETS: Final = (
    re.compile(r"""(://[^/\s:@"']*:)[^@/\s"']+(?=@)"""),
    re.compile(r"""(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}""", re.IGNORECASE),
    re.compile(
        r"""(\b[\w-]*(?:password|passwd|secret|token|api[_-]?key|authorization|private[_-]?key)["']?\s*[=:]\s*["']?)"""
        r"""(?!bearer\s|basic\s)[^\s"',;&}]{6,}""",
        re.IGNORECASE,
    ),
)


def hide_secrets(_: object, __: str, line: Any) -> str:
    """A line of the log without what looks like a secret: passwords in URLs, tokens, values of telling names.

    Args:
        line: As it would be written; the processor before has made it a string.
    """
    text = str(line)
    for secret in _SECRETS:
        text = secret.sub(r"\1***", text)
    return text


def log_level() -> str:
    """The least level that is written."""
    least = structlog.get_config()["wrapper_class"]
    return next((name for name, number in _LEVELS.items() if least is _WRAPPERS[number]), "debug")


def set_log_level(level: str) -> None:
    """Changes the least level that is written, while the process runs.

    Args:
        level: "debug", "info", "warning" or "error".
    """
    structlog.configure(wrapper_class=_WRAPPERS[_LEVELS[level]])
    logging.getLogger().setLevel(max(_LEVELS[level], logging.WARNING))


def set_up_logs(level: str, style: str, stream: TextIO | None = None) -> None:
    """Sends structlog's and the standard library's logs to one place in one form.

    Args:
        level: Least level that is written: "debug", "info", "warning" or "error".
        style: "json", "console", or "auto": console where the stream is a terminal.
        stream: Where to; standard error by default, so that standard output stays for answers.
    """
    stream = stream or sys.stderr
    as_text = style == "console" or (style == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if as_text
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    last.append(hide_secrets)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=_WRAPPERS[_LEVELS[level]],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # Libraries speak up only for what matters: their notes at a level below are for their own developers.
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)
