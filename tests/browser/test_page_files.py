"""The page's files over HTTP, without a browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.transports.http_page import ASSETS, DOCS, FOLDER, PAGE, POLICY
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess


@pytest.fixture
def web(web_server: ServerProcess) -> Iterator[Http]:
    with Http(web_server.http_port) as client:
        yield client


def test_every_file_of_the_page_is_served_and_no_other() -> None:
    assert ASSETS | {PAGE, DOCS} == {file.name for file in FOLDER.iterdir()}


def test_what_the_page_and_its_modules_name_is_there() -> None:
    named = set()
    for file in FOLDER.iterdir():
        named |= set(re.findall(r'(?:static/|from "\./)([\w.-]+)"', file.read_text()))
    assert named == ASSETS


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = (FOLDER / PAGE).read_text() + (FOLDER / DOCS).read_text()
    assert re.findall(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=", html) == []
    for file in FOLDER.iterdir():
        links = re.findall(r"https?://[^\s\"'`)]+", file.read_text())
        assert set(links) <= {"http://www.w3.org/2000/svg"}, file.name  # an XML namespace, never fetched


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/static/{name}" for name in sorted(ASSETS))])
def test_each_is_answered_with_its_type_and_a_strict_policy(web: Http, path: str) -> None:
    answer = web.get(path)
    assert answer.status == 200
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", "": "text/html"}
    assert answer.headers["Content-Type"] == f"{kinds[Path(path).suffix]}; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "..%2fweb%2fapp.js", "%2e%2e%2f__init__.py", "index.html", ".", "%00"])
def test_nothing_else_can_be_had(web: Http, name: str) -> None:
    assert web.get(f"/static/{name}").status in (400, 404)
