"""What asks a deployed server whether it is fit, and what asks a container's own: both against real servers."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.server_process import Address, serve

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--wait-s", "0", "--rate", "40", "--seconds", "0.5"]


@pytest.fixture(scope="module")
def shipped() -> Iterator[Address]:
    with serve(ROOT / "models", ["--workers", "1"]) as address:
        yield address


def smoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.smoke", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def healthcheck(**variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.healthcheck"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    environment = {**clean, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.slow
def test_a_server_that_answers_in_time_is_fit(shipped: Address) -> None:
    done = smoke(shipped.http, "--grpc", shipped.grpc, "--max-p99-ms", "10000", "--version", "1", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "version 1 answers its own 4 example pictures" in done.stdout
    assert "and by gRPC" in done.stdout
    assert "20 answers in 0.5 s" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--version", "7"], "expected version 7 to answer, it is version 1"),
        (["--max-p99-ms", "0.001"], "expected a p99 of at most 0.001 ms"),
    ],
)
def test_a_server_that_misses_a_bound_is_not(shipped: Address, arguments: list[str], reason: str) -> None:
    done = smoke(shipped.http, *QUICK, *arguments)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_failures_are_counted() -> None:
    with serve(ROOT / "models", ["--workers", "1", "--rate-limit-per-s", "15"]) as address:
        done = smoke(address.http, "--wait-s", "0", "--rate", "100", "--seconds", "1")
    assert done.returncode == 1
    assert "expected at most 0.10% failures" in done.stderr, done.stdout + done.stderr


def test_nobody_there_is_not_fit() -> None:
    done = smoke("http://127.0.0.1:9", "--wait-s", "0")
    assert done.returncode == 1
    assert "expected it to be ready within 0 s" in done.stderr


def test_the_health_check_knows_ready_from_absent(shipped: Address) -> None:
    ready = healthcheck(SHOAL_HTTP_PORT=str(urlsplit(shipped.http).port))
    assert (ready.returncode, ready.stderr) == (0, "")
    absent = healthcheck(SHOAL_HTTP_PORT="9")
    assert absent.returncode == 1
    assert absent.stderr.startswith("not ready: ")


def test_the_health_check_says_what_an_unready_server_answered() -> None:
    class Unready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if self.path == "/health/ready" else 200)
            self.end_headers()
            self.wfile.write(b"draining")

    with HTTPServer(("127.0.0.1", 0), Unready) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        done = healthcheck(SHOAL_HTTP_PORT=str(listening.server_port))
        listening.shutdown()
    assert (done.returncode, done.stderr) == (1, "not ready: the server answered 503: draining\n")


@pytest.mark.slow
def test_the_health_check_asks_a_server_with_tls(tmp_path: Path) -> None:
    subprocess.run([str(ROOT / "deploy/secrets.sh"), "localhost", str(tmp_path)], check=True, capture_output=True)
    certificate, key = str(tmp_path / "proxy/tls.crt"), str(tmp_path / "proxy/tls.key")
    with serve(ROOT / "models", ["--workers", "1", "--tls-cert", certificate, "--tls-key", key]) as address:
        port = str(urlsplit(address.http).port)
        assert healthcheck(SHOAL_HTTP_PORT=port, SHOAL_TLS_CERT=certificate).returncode == 0
        assert healthcheck(SHOAL_HTTP_PORT=port).returncode == 1
        trusting = smoke(f"https://localhost:{port}", "--ca", certificate, "--max-p99-ms", "10000", *QUICK)
        assert trusting.returncode == 0, trusting.stderr
        wary = smoke(f"https://localhost:{port}", *QUICK)
        assert "CERTIFICATE_VERIFY_FAILED" in wary.stderr
