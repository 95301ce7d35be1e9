"""TLS on both ports of a real server, with and without clients' certificates, renewed while it runs."""

import http.client
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import picture, write_bundle
from tests.wire.certificates import Authority, Pair
from tests.wire.server_process import ServerProcess, run_server

pytestmark = pytest.mark.slow  # each starts from a server process

WITHIN_S = 20
PICTURE = picture(200)
BIG = picture(200, 700, 700, form="BMP")  # half a megabyte: it comes in many pieces


@dataclass
class Client:
    """What a client trusts, and shows."""

    root: bytes
    own: Pair | None = None
    folder: Path = Path()

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.root.decode())
        if self.own is not None:
            context.load_cert_chain(*self.own.write(self.folder, "client"))
        return context

    def connect(self, server: ServerProcess) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", server.http_port, timeout=20, context=self.context())

    def predict(self, server: ServerProcess, body: bytes = PICTURE) -> int:
        connection = self.connect(server)
        try:
            connection.request("POST", "/predict", body)
            return connection.getresponse().status
        finally:
            connection.close()

    def classify(self, server: ServerProcess) -> int:
        """By gRPC: how many predictions came."""
        own = (None, None) if self.own is None else (self.own.key, self.own.cert)
        options = [("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(self.root, *own)
        with grpc.secure_channel(server.grpc_address, credentials, options) as channel:
            request = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[PICTURE]))
            return len(pb_grpc.ClassifierStub(channel).Classify(request, timeout=10).predictions)

    def sees(self, server: ServerProcess) -> int:
        """The serial number of the certificate that a new connection is shown."""
        connection = self.connect(server)
        try:
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            return int(str((connection.sock.getpeercert() or {})["serialNumber"]), 16)
        finally:
            connection.close()


@dataclass
class Secured:
    """A server with TLS."""

    server: ServerProcess
    authority: Authority
    pair: Pair
    folder: Path

    @property
    def client(self) -> Client:
        return Client(self.authority.cert)

    def renew(self, authority: Authority) -> Pair:
        pair = authority.sign("renewed")
        pair.write(self.folder, "server")
        return pair


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    return models


def run(models: Path, folder: Path, *flags: str) -> Iterator[Secured]:
    authority = Authority("the servers' authority")
    pair = authority.sign("server")
    cert, key = pair.write(folder, "server")
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--latency-budget-ms", "5000")
    with run_server(models, folder / "run", *tls, *flags) as server:
        yield Secured(server, authority, pair, folder)


@pytest.fixture(params=["1", "2"], ids=["one worker", "two workers"])
def secured(models: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Secured]:
    yield from run(models, tmp_path, "--workers", request.param)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.05)  # another process is what we wait for


def fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except (OSError, http.client.HTTPException):
        return True
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.UNAVAILABLE)
    return False


def test_both_ports_speak_tls_and_certificates_are_renewed_without_a_restart(secured: Secured) -> None:
    server, client = secured.server, secured.client
    assert f"open   https://127.0.0.1:{server.http_port}/" in server.log
    assert [client.predict(server), client.predict(server, BIG)] == [200, 200]
    assert client.classify(server) == 1
    assert client.sees(server) == secured.pair.serial
    assert fails(lambda: Client(Authority("a stranger").cert).predict(server))
    assert fails(lambda: Client(Authority("a stranger").cert).classify(server))

    kept = client.connect(server)
    kept.connect()
    next_authority = Authority("the next authority")
    pair = secured.renew(next_authority)
    renewed = Client(next_authority.cert)
    # Several connections in a row, so that every worker is among them.
    wait_until(lambda: not any(fails(lambda: renewed.sees(server)) for _ in range(6)), "the new certificate is shown")
    wait_until(lambda: not any(fails(lambda: renewed.classify(server)) for _ in range(6)), "gRPC shows it too")
    assert renewed.sees(server) == pair.serial
    wait_until(lambda: fails(lambda: client.predict(server)), "the old certificate is gone")
    wait_until(lambda: fails(lambda: client.classify(server)), "the old certificate is gone from gRPC too")
    kept.request("POST", "/predict", PICTURE)  # a connection from before goes on
    assert kept.getresponse().status == 200
    kept.close()

    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.fixture(scope="module")
def plain_tls(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from run(models, tmp_path_factory.mktemp("tls"))


def test_who_speaks_no_tls_gets_no_answer(plain_tls: Secured) -> None:
    server = plain_tls.server
    plain = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    plain.connect()
    assert plain.sock is not None
    plain.sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert fails(plain.getresponse)
    plain.close()
    with server.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        pb_grpc.ClassifierStub(channel).GetModel(pb.GetModelRequest(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert plain_tls.client.predict(server) == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_is_the_least(plain_tls: Secured, version: ssl.TLSVersion) -> None:
    context = plain_tls.client.context()
    context.minimum_version = context.maximum_version = version
    connection = http.client.HTTPSConnection("127.0.0.1", plain_tls.server.http_port, timeout=20, context=context)
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200
    connection.close()


def test_the_hot_path_and_aiohttp_share_a_connection_over_tls(plain_tls: Secured) -> None:
    connection = plain_tls.client.connect(plain_tls.server)
    for _ in range(3):
        connection.request("POST", "/predict", PICTURE)
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
    connection.close()


def test_files_that_do_not_fit_together_leave_those_in_force(plain_tls: Secured) -> None:
    stranger = Authority("x").sign("x")
    (plain_tls.folder / "server.crt").write_bytes(stranger.cert)
    wait_until(lambda: "what was in force stays" in plain_tls.server.log, "the fault is logged")
    assert plain_tls.client.sees(plain_tls.server) == plain_tls.pair.serial
    assert plain_tls.client.classify(plain_tls.server) == 1
    (plain_tls.folder / "server.crt").write_bytes(plain_tls.pair.cert)


@pytest.fixture(scope="module")
def mutual(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Secured, Authority]]:
    folder, clients = tmp_path_factory.mktemp("mutual"), Authority("the clients' authority")
    (folder / "clients.crt").write_bytes(clients.cert)
    for secured in run(models, folder, "--tls-client-ca", str(folder / "clients.crt")):
        yield secured, clients


def test_with_mutual_tls_a_client_needs_a_certificate_of_the_right_authority(
    mutual: tuple[Secured, Authority], tmp_path: Path
) -> None:
    secured, clients = mutual
    server, root = secured.server, secured.authority.cert
    known = Client(root, clients.sign("client", client=True), tmp_path)
    assert (known.predict(server), known.classify(server)) == (200, 1)
    nobody = Client(root)
    stranger = Client(root, Authority("stranger").sign("client", client=True), tmp_path)
    a_server = Client(root, clients.sign("a server"), tmp_path)  # signed, but not to be a client
    for client in (nobody, stranger, a_server):
        assert fails(partial(client.predict, server))
        assert fails(partial(client.classify, server))


def test_clients_of_an_authority_that_is_taken_out_are_refused(
    mutual: tuple[Secured, Authority], tmp_path: Path
) -> None:
    secured, clients = mutual
    server, path = secured.server, secured.folder / "clients.crt"
    old = Client(secured.authority.cert, clients.sign("old", client=True), tmp_path / "old")
    successor = Authority("its successor")
    new = Client(secured.authority.cert, successor.sign("new", client=True), tmp_path / "new")
    path.write_bytes(clients.cert + successor.cert)
    wait_until(lambda: not fails(lambda: new.predict(server)), "both are taken")
    assert old.predict(server) == 200
    wait_until(lambda: not fails(lambda: new.classify(server)), "both are taken by gRPC")
    path.write_bytes(successor.cert)
    wait_until(lambda: fails(lambda: old.predict(server)), "the old one is refused")
    wait_until(lambda: fails(lambda: old.classify(server)), "the old one is refused by gRPC")
    assert (new.predict(server), new.classify(server)) == (200, 1)
    path.write_bytes(clients.cert)
    wait_until(lambda: not fails(lambda: old.predict(server)), "as it was")
    wait_until(lambda: not fails(lambda: old.classify(server)), "as it was")
