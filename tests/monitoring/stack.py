"""Debian's Prometheus and Alertmanager on copies of our files, with windows short enough for a test to wait for."""

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.debian import ALERTMANAGER, PROMETHEUS, tool
from tests.wire.metrics_page import free_port

WITHIN_S = 60
SCRAPE_S = 1
# What the rules' windows become. Long enough for several scrapes, short enough for what is over to be forgotten.
WINDOW = "8s"


@dataclass
class Notified:
    """What Alertmanager has sent."""

    alerts: list[tuple[str, str]] = field(default_factory=list)  # name, "firing" or "resolved"


@dataclass
class Prometheus:
    """A running Prometheus, and the Alertmanager behind it."""

    port: int
    notified: Notified

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            document = json.load(response)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression answers now."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def wait(self, condition: Callable[[], bool], what: str | Callable[[], str]) -> None:
        give_up_s = time.monotonic() + WITHIN_S
        while not condition():
            if time.monotonic() > give_up_s:
                spelled = what if isinstance(what, str) else what()
                pytest.fail(f"not within {WITHIN_S} s: {spelled}; firing: {self.firing()}")
            time.sleep(0.2)  # another process is what we wait for

    def wait_fires(self, alert: str) -> None:
        self.wait(lambda: alert in self.firing(), f"{alert} fires")
        self.wait(lambda: (alert, "firing") in self.notified.alerts, f"Alertmanager tells of {alert}")

    def wait_clears(self, alert: str) -> None:
        self.wait(lambda: alert not in self.firing(), f"{alert} clears")
        self.wait(lambda: (alert, "resolved") in self.notified.alerts, f"Alertmanager tells that {alert} is over")


@contextmanager
def run_prometheus(folder: Path, target_port: int) -> Iterator[Prometheus]:
    """Prometheus on copies of our files, scraping one server, with Alertmanager and somebody who hears of alerts.

    Args:
        folder: For everything they write.
        target_port: The server's port for metrics.
    """
    with ExitStack() as stack:
        notified = Notified()
        webhook = stack.enter_context(_webhook(notified))
        alertmanager = stack.enter_context(_run_alertmanager(folder, webhook))
        config = _write_prometheus(folder, target_port, alertmanager)
        port = free_port()
        flags = (f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'tsdb'}")
        command = [tool("prometheus"), f"--config.file={config}", *flags]
        stack.enter_context(_process(command, folder / "prometheus.log", port))
        yield Prometheus(port, notified)


def _write_prometheus(folder: Path, target_port: int, alertmanager_port: int) -> Path:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
    (shoal,) = [job for job in config["scrape_configs"] if job["job_name"] == "shoal"]
    del shoal["dns_sd_configs"]
    shoal["static_configs"] = [{"targets": [f"127.0.0.1:{target_port}"]}]
    config["scrape_configs"] = [shoal]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]
    (folder / "rules").mkdir()
    for file in (PROMETHEUS / "rules").glob("*.yml"):
        (folder / "rules" / file.name).write_text(shorten(file.read_text()))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def shorten(rules: str) -> str:
    """Rules with short windows, and without long waits."""
    rules, windows = re.subn(r"\[\d+[mh]\]", f"[{WINDOW}]", rules)
    rules, _ = re.subn(r"^(\s+for:) \d+m$", r"\1 1s", rules, flags=re.MULTILINE)
    assert windows
    return rules


@contextmanager
def _run_alertmanager(folder: Path, webhook_port: int) -> Iterator[int]:
    config = yaml.safe_load(ALERTMANAGER.read_text())
    quick = {"group_wait": "1s", "group_interval": "1s"}
    config["route"] |= quick
    config["route"]["routes"] = [route | quick for route in config["route"]["routes"]]
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{webhook_port}/", "send_resolved": True}]
    config["inhibit_rules"] = []  # each alert is looked at for itself
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    flags = ("--cluster.listen-address=", f"--storage.path={folder / 'alertmanager'}")
    command = [
        tool("prometheus-alertmanager"),
        f"--config.file={path}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    ]
    with _process(command, folder / "alertmanager.log", port):
        yield port


@contextmanager
def _process(command: list[str], log_file: Path, port: int) -> Iterator[None]:
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_ready(process, port, log_file)
            yield
        finally:
            process.terminate()


def _wait_ready(process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while True:
        assert process.poll() is None, log_file.read_text()
        assert time.monotonic() < give_up_s, log_file.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)  # it is starting


@contextmanager
def _webhook(notified: Notified) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            notified.alerts += [(alert["labels"]["alertname"], alert["status"]) for alert in document["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class has it so
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
