"""Prometheus' and Alertmanager's files, judged by their own tools where those are installed."""

import re
from typing import Any

import pytest
import yaml

from server import errors
from server.transports.status import TABLE
from tests.monitoring.debian import ALERTMANAGER, PROMETHEUS, ROOT, run
from tests.monitoring.metric_names import known_names, names_in, rules
from tests.wire.metrics_page import documented

TESTS = PROMETHEUS / "tests" / "alerts_test.yml"
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
MONITORING = ROOT / "docs" / "monitoring.md"


def test_prometheus_takes_its_files() -> None:
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    run("promtool", "check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))


@pytest.mark.slow
def test_every_alert_fires_and_clears() -> None:
    run("promtool", "test", "rules", TESTS)


def test_alertmanager_takes_its_file() -> None:
    run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "on-call"), ("warning", "operators")])
def test_alerts_go_to_whom_they_concern(severity: str, receiver: str) -> None:
    told = run("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}")
    assert told.split() == [receiver]


def evaluations() -> dict[str, list[tuple[float, bool]]]:
    """Alert → when it is looked at, and whether it is to fire, over all of promtool's tests that let it fire."""
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in ALERTS}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        looks: dict[str, list[tuple[float, bool]]] = {}
        for look in test["alert_rule_test"]:
            looks.setdefault(look["alertname"], []).append((seconds(look["eval_time"]), bool(look.get("exp_alerts"))))
        for name, when in looks.items():
            if any(fires for _, fires in when):
                found[name] = sorted(when)
    return found


def seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_each_alert_is_seen_firing_and_then_cleared(alert: str) -> None:
    fires = [fires for _, fires in evaluations()[alert]]
    assert True in fires
    assert fires[-1] is False


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_each_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / file) == MONITORING
    assert anchor == alert.lower()
    assert re.search(rf"^### {alert}$", MONITORING.read_text(), re.MULTILINE)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule.get("record"))
def test_rules_name_only_metrics_that_exist(rule: dict[str, Any]) -> None:
    named = names_in(rule["expr"])
    assert named
    assert named <= known_names()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (job, le) (rate(shoal_request_seconds_bucket{le="0.1"}[5m])) > 0', {"shoal_request_seconds_bucket"}),
        ("a:b:c > on (job) max by (job) (d) and e", {"a:b:c", "d", "e"}),
        ('x{y=~"a|b"} / ignoring(z) group_left(w) (v > 0) * 1e3', {"x", "v"}),
    ],
)
def test_names_are_found(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names


def test_the_error_rate_leaves_out_just_what_is_no_fault_of_the_server() -> None:
    (rule,) = [rule for rule in rules() if rule.get("record") == "job:shoal_errors:rate5m"]
    found = re.search(r'outcome!~"([^"]*)"', rule["expr"])
    assert found is not None
    excused = set(found[1].split("|"))
    callers = {error.__name__ for error, status in TABLE.items() if status.http < 500}
    assert excused == callers | {"ok", "CancelledError", errors.RateLimited.__name__, errors.Draining.__name__}


def test_every_outcome_is_explained() -> None:
    section = (ROOT / "docs" / "metrics.md").read_text().split("\n## ")[1]
    assert documented()
    for error in TABLE:
        assert f"`{error.__name__}`" in section, error
