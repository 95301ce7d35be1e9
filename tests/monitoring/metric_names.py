"""The metrics that a PromQL expression names, and those that can be named."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.debian import PROMETHEUS
from tests.wire.metrics_page import documented

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACES = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w.:])[A-Za-z_:][\w:]*(?![\w:])(?!\s*\()")
_WORDS = frozenset(
    {"and", "or", "unless", "bool", "by", "on", "ignoring", "without", "group_left", "group_right", "inf"}
)
# Prometheus writes this one itself, for every target.
BUILT_IN = frozenset({"up"})


def names_in(expression: str) -> set[str]:
    """The metrics that an expression names, their histograms' suffixes as written."""
    bare = _GROUPING.sub(" ", _BRACES.sub(" ", _STRINGS.sub('""', expression)))
    return set(_NAME.findall(bare)) - _WORDS


def rules() -> list[dict[str, Any]]:
    """Every rule of deploy/prometheus/rules."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [rule for file in files for group in _load(file)["groups"] for rule in group["rules"]]


def known_names() -> set[str]:
    """What an expression may name: what docs/metrics.md explains, what is recorded, what Prometheus has itself."""
    names = set(BUILT_IN) | {rule["record"] for rule in rules() if "record" in rule}
    for row in documented().values():
        suffixes = ("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",)
        names |= {row.name + suffix for suffix in suffixes}
    return names


def _load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded
