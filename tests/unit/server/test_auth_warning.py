from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.announcement import Announcement, announce
from server.settings import Settings

WHAT = Announcement("1", "grey version 1", has_example=False)


def warnings(**settings: object) -> list[str]:
    with capture_logs() as logs:
        announce(Settings(**settings), WHAT, 8000, 8001)  # type: ignore[arg-type]
    return [str(entry["event"]) for entry in logs if entry["log_level"] == "warning"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "a.example", ""])
def test_it_says_so_where_strangers_can_reach_it_and_nobody_is_asked(host: str) -> None:
    (warning,) = warnings(host=host)
    assert "no authentication is set up" in warning


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_this_machine_alone_it_does_not(host: str) -> None:
    assert warnings(host=host) == []


@pytest.mark.parametrize("how", ["api_keys", "jwt_key_file", "jwks", "tls_client_ca"])
def test_whoever_asks_for_something_is_not_open(how: str) -> None:
    assert warnings(host="0.0.0.0", **{how: "file"}) == []


def test_tls_alone_asks_nobody() -> None:
    assert len(warnings(host="0.0.0.0", tls_cert=Path("c"), tls_key=Path("k"))) == 1
