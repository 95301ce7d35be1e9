"""Grafana's dashboard and data source: whole, and asking only what there is to be had."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.dashboard import Query, load, panels, queries
from tests.monitoring.debian import GRAFANA, run
from tests.monitoring.metric_names import known_names, names_in
from tests.wire.metrics_page import documented

EVERY = sorted(set(queries()))
# What Prometheus adds to every series, and what a histogram has.
ALWAYS = frozenset({"job", "instance", "le"})


def provisioned(kind: str) -> dict[str, Any]:
    (file,) = (GRAFANA / "provisioning" / kind).glob("*.yml")
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def test_what_is_provisioned_is_what_the_dashboard_asks() -> None:
    (source,) = provisioned("datasources")["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    dashboard = load()
    askers = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    askers += dashboard["annotations"]["list"] + dashboard["templating"]["list"]
    assert all(asker["datasource"] == expected for asker in askers)
    (provider,) = provisioned("dashboards")["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_the_dashboard_is_whole() -> None:
    dashboard = load()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard["uid"]
    assert dashboard["schemaVersion"] >= 39
    for panel in panels():
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(references) == len(set(references)), panel["title"]
        assert panel["title"]


def test_no_panel_covers_another() -> None:
    cells = [(panel["title"], panel["gridPos"]) for panel in load()["panels"]]
    for title, cell in cells:
        assert 0 <= cell["x"] <= cell["x"] + cell["w"] <= 24, title
    for (one, a), (other, b) in combinations(cells, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one, other)


def test_every_concern_has_its_row() -> None:
    rows = [panel["title"] for panel in load()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Overview",
        "Traffic",
        "Latency against the budget",
        "Batches and queue",
        "Refusals and losses",
        "Models",
        "Accuracy and drift",
        "Response cache",
        "Workers and machine",
        "GPU",
    ]


def test_every_query_parses(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query.expression} for number, query in enumerate(EVERY)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run("promtool", "check", "rules", file)


@pytest.mark.parametrize("query", EVERY, ids=lambda query: query.panel)
def test_queries_name_only_what_is_explained(query: Query) -> None:
    named = names_in(query.expression)
    assert named
    assert named <= known_names() | {"ALERTS"}


@pytest.mark.parametrize("query", EVERY, ids=lambda query: query.panel)
def test_queries_and_legends_name_only_labels_that_are_there(query: Query) -> None:
    explained = {row.name: row.labels for row in documented().values()}
    for metric, matchers in re.findall(r"(shoal_\w+)\{([^}]*)\}", query.expression):
        name = re.sub("_(bucket|sum|count)$", "", metric)
        assert set(re.findall(r"(\w+)(?==)", matchers)) <= explained[name] | ALWAYS, metric
    if query.panel == "Alerts":
        return
    labels = ALWAYS.union(
        *(explained.get(re.sub("_(bucket|sum|count)$", "", n), ()) for n in names_in(query.expression))
    )
    grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", query.expression) for label in group.split(", ")}
    assert grouped <= labels
    shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert shown <= (grouped or labels)
