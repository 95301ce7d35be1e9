import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from server.errors import StartupError
from server.settings import Settings
from server.tls import Tls, open_tls
from server.transports import http_tls
from server.transports.http_tls import Accepter
from tests.wire.certificates import Authority, Pair


def settings(**given: Any) -> Settings:
    return Settings(**given)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("a")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.sign("server")


def test_without_settings_there_is_none() -> None:
    assert open_tls(settings()) is None


def test_a_pair_of_files_makes_a_context_that_asks_no_client(tmp_path: Path, pair: Pair) -> None:
    cert, key = pair.write(tmp_path, "server")
    tls = open_tls(settings(tls_cert=cert, tls_key=key))
    assert tls is not None
    assert tls.current.context.verify_mode is ssl.CERT_NONE
    assert tls.current.context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (tls.current.chain, tls.current.key, tls.current.client_ca) == (pair.cert, pair.key, None)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("tls_cert",), "--tls-key"),
        (("tls_key",), "--tls-cert"),
        (("tls_client_ca",), "--tls-cert"),
        (("tls_cert", "tls_client_ca"), "--tls-key"),
    ],
)
def test_what_is_missing_is_named(names: tuple[str, ...], missing: str) -> None:
    with pytest.raises(StartupError, match=f"{missing}: expected a PEM file"):
        open_tls(settings(**dict.fromkeys(names, Path("x"))))


def test_files_that_do_not_fit_are_said_and_never_quoted(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    cert, key = pair.write(tmp_path, "server")
    _, other = authority.sign("other").write(tmp_path, "other")
    (tmp_path / "text").write_text("no PEM, but perhaps a secret")
    wrong = [(cert, other, None), (cert, tmp_path / "text", None), (tmp_path / "text", key, None)]
    for paths in [*wrong, (cert, key, tmp_path / "text"), (tmp_path / "none", key, None)]:
        with pytest.raises(StartupError, match="--tls-") as error:
            Tls(*paths)
        assert "perhaps a secret" not in str(error.value)


def test_an_encrypted_key_asks_nobody_for_its_password(tmp_path: Path, pair: Pair) -> None:
    cert, key = pair.write(tmp_path, "server")
    private = serialization.load_pem_private_key(pair.key, None)
    locked = serialization.BestAvailableEncryption(b"a password")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(StartupError, match="not encrypted"):
        Tls(cert, key, None)


def test_new_files_make_a_new_context_and_an_authority_can_be_taken_out(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.sign("first").write(tmp_path, "server")
    clients = tmp_path / "clients.crt"
    clients.write_bytes(authority.cert + Authority("b").cert)
    tls = Tls(cert, key, clients)
    before = tls.current
    assert len(before.context.get_ca_certs()) == 2
    asyncio.run(tls.refresh())
    assert tls.current is before
    clients.write_bytes(authority.cert)
    asyncio.run(tls.refresh())
    assert tls.current is not before
    assert len(tls.current.context.get_ca_certs()) == 1
    assert tls.current.context.verify_mode is ssl.CERT_REQUIRED


def test_a_client_that_never_begins_its_handshake_is_let_go(tmp_path: Path, pair: Pair) -> None:
    tls = Tls(*pair.write(tmp_path, "server"), None)

    async def check() -> None:
        loop = asyncio.get_running_loop()

        async def adopt(connection: socket.socket) -> None:
            context = tls.current.context
            await loop.connect_accepted_socket(asyncio.Protocol, connection, ssl=context, ssl_handshake_timeout=0.01)

        with socket.create_server(("127.0.0.1", 0)) as listening:
            accepter = Accepter(listening, adopt, 8)
            accepter.start()
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()
            await accepter.stop()
        assert accepter._handshakes == set()

    asyncio.run(check())
    assert http_tls.HANDSHAKE_S == 10
