"""The Grafana dashboard as tests see it: its panels, and its queries as Grafana would send them."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.monitoring.debian import GRAFANA

FILE = GRAFANA / "dashboards" / "shoal.json"


class Query(NamedTuple):
    """One query of one panel.

    Args:
        panel: The panel's title.
        legend: What names its lines.
        expression: PromQL, with Grafana's variables filled in.
    """

    panel: str
    legend: str
    expression: str


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FILE.read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in load()["panels"] if panel["type"] != "row"]


def queries(window: str = "5m") -> Iterator[Query]:
    """Every query, annotations included.

    Args:
        window: What Grafana would take for $__rate_interval.
    """
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["legendFormat"], fill(target["expr"], window))
    for annotation in load()["annotations"]["list"]:
        yield Query(annotation["name"], annotation["titleFormat"], fill(annotation["expr"], window))


def fill(expression: str, window: str) -> str:
    for variable, value in (("$__rate_interval", window), ("$instance", ".*"), ("$model", ".*")):
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression
