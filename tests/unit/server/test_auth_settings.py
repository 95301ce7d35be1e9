"""From settings to what is kept to: what does not fit together, key sets by HTTP, files that are followed."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.auth import Credentials
from server.auth_jwks import MAX_BYTES, fetch_key_set, open_key_set
from server.cli import read_settings
from server.errors import StartupError
from server.secret_files import refresh_for_ever
from server.security import open_security
from server.settings import Settings
from tests.wire.tokens import AUDIENCE, SECRET, serve_issuer, shared_token

ROOT = Path(__file__).resolve().parents[3]


def opened(check: Callable[[Any], Awaitable[None]] | None = None, **given: Any) -> None:
    async def whole() -> None:
        async with open_security(Settings(**given)) as security:
            if check is not None:
                await check(security)

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jwks": "https://issuer.example/jwks"}, "--jwt-audience: expected one with --jwks"),
        ({"jwt_issuer": "https://issuer.example"}, "--jwks, --jwt-key-file: expected one of them"),
        ({"jwt_audience": "shoal"}, "--jwks, --jwt-key-file: expected one of them"),
        ({"jwt_revoked": "none"}, "--jwks, --jwt-key-file: expected one of them"),
        (
            {"jwt_revoked": "none", "jwks": "https://issuer.example/jwks", "jwt_audience": "a"},
            "--jwt-revoked: expected a file that can be read",
        ),
        (
            {"jwks": "http://issuer.example/jwks", "jwt_audience": "a"},
            "--jwks: expected a file or a URL that begins with",
        ),
        (
            {"jwks": "ftp://issuer.example/jwks", "jwt_audience": "a"},
            "--jwks: expected a file or a URL that begins with",
        ),
        ({"jwks": "none.json", "jwt_audience": "a"}, "--jwks: expected a file that can be read, received none.json"),
        ({"api_keys": "none"}, "--api-keys: expected a file that can be read"),
        ({"jwt_key_file": "none"}, "--jwt-key-file: expected a file that can be read"),
        ({"tls_cert": "none"}, "--tls-key: expected a PEM file"),
    ],
)
def test_what_does_not_fit_together_ends_the_start(given: dict[str, Any], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        opened(**given)


def test_nothing_asked_for_is_nothing_kept_to() -> None:
    async def check(security: Any) -> None:
        assert (security.guard, security.tls, security.restricts, security.asks) == (None, None, False, False)

    opened(check)


def test_limits_alone_ask_nobody() -> None:
    async def check(security: Any) -> None:
        assert (security.restricts, security.asks) == (True, False)
        caller = await security.guard.admit(Credentials(), "admin", "192.0.2.1")
        assert caller.name == "address:192.0.2.1"

    opened(check, rate_limit_per_s=1)
    opened(check, max_concurrent_per_client=1)


def test_a_key_file_and_a_key_set_are_both_good(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    with serve_issuer() as issuer:

        async def check(security: Any) -> None:
            for token in (shared_token(), issuer.sign("rsa"), issuer.sign("ed")):
                caller = await security.guard.admit(Credentials(f"Bearer {token}"), "predict", "")
                assert caller.name == "token:alice"

        opened(check, jwt_key_file=tmp_path / "secret", jwks=issuer.url, jwt_audience=AUDIENCE)
        assert issuer.asked == 1


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "https://a.example/page", "a.example", "https://u@a.example", "null", "https://"]
)
def test_what_is_no_origin_is_told(origin: str) -> None:
    with pytest.raises(StartupError, match="--cors-origins: expected origins of the form https://host"):
        read_settings(["--cors-origins", f"https://good.example,{origin}"])


def test_origins_are_a_list() -> None:
    given = read_settings(["--cors-origins", "https://a.example, http://localhost:3000"])
    assert given.cors_origins == ("https://a.example", "http://localhost:3000")
    assert read_settings(["--cors-origins", "*"]).cors_origins == ("*",)
    assert read_settings([]).cors_origins == ()


# ---- a key set by HTTP ----


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # it is not read to its end where it is too long
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/"
        thread.join()


@pytest.mark.parametrize(
    ("status", "headers", "body", "message"),
    [
        (302, {"Location": "http://elsewhere.example/"}, b"", "expected status 200 of .*, received 302"),
        (500, {}, b"", "expected status 200 of .*, received 500"),
        (200, {}, b" " * (MAX_BYTES + 1), "expected at most 262,144 bytes"),
    ],
)
def test_a_source_that_misbehaves_is_not_believed(
    status: int, headers: dict[str, str], body: bytes, message: str
) -> None:
    with answering(status, headers, body) as url, pytest.raises(StartupError, match=message):
        asyncio.run(fetch_key_set(url))


def test_a_source_that_sends_no_keys_says_so_in_the_log_and_changes_nothing() -> None:
    async def check(url: str) -> None:
        keys = open_key_set(url, 300)
        assert not await keys.refresh()
        assert (keys.keys, keys.fetched) == ((), False)

    with answering(200, {}, b"<html>") as url, capture_logs() as logs:
        asyncio.run(check(url))
    assert [entry["event"] for entry in logs] == ["no new signing keys"]


# ---- what nobody needs is not imported ----


@pytest.mark.slow  # starts a process
def test_a_server_that_asks_nobody_imports_no_cryptography() -> None:
    names = "[name for name in ('jwt', 'cryptography') if name in sys.modules]"
    program = (
        "import asyncio, sys, server.worker; from server.security import open_security; from server.settings import"
        " Settings; asyncio.run(open_security(Settings()).__aenter__()); "
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}print(*{names})"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


# ---- what follows files ----


def test_one_that_fails_keeps_no_other_from_being_followed() -> None:
    async def check() -> None:
        seen = asyncio.Event()

        async def fail() -> None:
            raise RuntimeError("a fault of ours")

        async def see() -> None:
            seen.set()

        task = asyncio.create_task(refresh_for_ever([fail, see], every_s=0))
        async with asyncio.timeout(5):
            await seen.wait()
        assert not task.done()
        task.cancel()

    with capture_logs() as logs:
        asyncio.run(check())
    assert logs[0]["event"] == "refreshing keys failed"
