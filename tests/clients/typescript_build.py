"""clients/typescript built from what is committed, and a page's server that passes requests on to Shoal."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "clients" / "typescript"
LIMIT_S: Final = 120
NOT_COMMITTED: Final = shutil.ignore_patterns("dist", "node_modules", "*.tgz")
PASSED_ON: Final = ("Content-Type", "Server-Timing", "Retry-After", "X-Request-Id")


def run(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, and gives what it printed."""
    command = [str(word) for word in words]
    variables = os.environ | {"npm_config_update_notifier": "false"} | environment
    return subprocess.run(command, cwd=cwd, env=variables, check=False, capture_output=True, text=True, timeout=LIMIT_S)


def build(folder: Path) -> Path:
    """A copy of the package with its compiler installed and its output built.

    Args:
        folder: Where to; it does not exist yet.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("clients/typescript is built with npm: install Node.js 20 with npm")
    shutil.copytree(PACKAGE, folder, ignore=NOT_COMMITTED)
    installed = run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    if installed.returncode:
        pytest.skip(f"TypeScript cannot be installed from npm here: {installed.stderr[-300:]}")
    built = run(npm, "run", "build", cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def install(package: Path, folder: Path) -> Path:
    """Packs the package as it would be published, and installs that and nothing else.

    Args:
        package: Where it was built.
        folder: Gets `node_modules/shoal-client`.
    """
    packed = run("npm", "pack", "--ignore-scripts", "--json", "--pack-destination", folder, cwd=package)
    assert packed.returncode == 0, packed.stderr
    (archive,) = folder.glob("*.tgz")
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    installed = run("npm", "install", "--offline", "--no-audit", "--no-fund", archive, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return folder / "node_modules" / "shoal-client"


@contextmanager
def serve_page(page: str, package: Path, shoal: str) -> Iterator[str]:
    """One origin as a proxy makes it: a page at /, the package below /shoal-client/, the server below /shoal/.

    Args:
        page: The page.
        package: The package.
        shoal: The server's URL.

    Yields:
        The origin.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            if self.path == "/":
                self._answer(200, {"Content-Type": "text/html"}, page.encode())
            elif self.path.startswith("/shoal-client/dist/"):
                script = package / "dist" / Path(self.path).name
                self._answer(200, {"Content-Type": "text/javascript"}, script.read_bytes())
            elif self.path.startswith("/shoal/"):
                self._pass_on()
            else:
                self._answer(404, {}, b"")

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = HTTPConnection(urlsplit(shoal).netloc, timeout=LIMIT_S)
            try:
                kept = {name: value for name, value in self.headers.items() if name not in {"Host", "Connection"}}
                connection.request(self.command, self.path.removeprefix("/shoal"), body, kept)
                answer = connection.getresponse()
                headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
                self._answer(answer.status, headers, answer.read())
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
