import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli import read_settings
from server.errors import StartupError
from server.trusted_proxies import TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.1", "203.0.113.1"),
        ("10.1.2.3", " 198.51.100.1 ,203.0.113.1 ", "203.0.113.1"),
        ("10.1.2.3", "203.0.113.1, 192.0.2.7, 10.9.9.9", "203.0.113.1"),
        ("10.1.2.3", "203.0.113.1:4711", "203.0.113.1"),
        ("10.1.2.3", "[2001:db8:2::1]:4711", "2001:db8:2::1"),
        ("10.1.2.3", "2001:db8:2::1", "2001:db8:2::1"),
        ("2001:db8:1::5", "203.0.113.1", "203.0.113.1"),
        ("::ffff:10.1.2.3", "::ffff:203.0.113.1", "203.0.113.1"),
        ("10.1.2.3", "10.4.5.6", "10.4.5.6"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("", "198.51.100.1", ""),
        ("10.1.2.3", "203.0.113.1, unknown", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.1, 192.0.2.7, ,", "10.1.2.3"),
    ],
)
def test_whose_request_it_is(peer: str, forwarded: str, client: str) -> None:
    assert PROXIES.client_of(peer, forwarded) == client


@given(st.text(max_size=600))
def test_whatever_a_client_writes_itself_the_proxy_s_word_is_the_last(written: str) -> None:
    assert PROXIES.client_of("10.1.2.3", f"{written}, 203.0.113.1") == "203.0.113.1"
    assert PROXIES.client_of("203.0.113.9", written) == "203.0.113.9"


def test_networks_are_a_list() -> None:
    given = read_settings(["--trusted-proxies", "10.0.0.0/8, 192.0.2.7,2001:db8::/32"])
    assert given.trusted_proxies == ("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "proxy", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_told(networks: str) -> None:
    with pytest.raises(StartupError, match="--trusted-proxies: "):
        read_settings(["--trusted-proxies", networks])
