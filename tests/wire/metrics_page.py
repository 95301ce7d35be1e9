"""A page of metrics as tests read it, and the list in docs/metrics.md."""

import re
import socket
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[\w, ]*)\|", re.MULTILINE)


@dataclass(frozen=True)
class Documented:
    """A line of docs/metrics.md."""

    name: str
    kind: str
    labels: frozenset[str]
    section: str


def documented() -> dict[str, Documented]:
    """Every metric that docs/metrics.md explains."""
    found = {}
    for section in DOCS.read_text().split("\n## ")[1:]:
        title = section.split("\n", 1)[0]
        for row in _ROW.finditer(section):
            labels = frozenset(filter(None, row["labels"].strip().split(", ")))
            found[row["name"]] = Documented(row["name"], row["kind"], labels, title)
    return found


def read(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
        return str(response.read().decode())


def families(text: str) -> dict[str, Metric]:
    """Families by the name that the page's TYPE line has."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text)
    }


def value(text: str, sample: str, **labels: str) -> float:
    """The sum of a sample's values that have these labels."""
    return sum(
        found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
