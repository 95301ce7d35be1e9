"""Clients of the stack, as its users have them: HTTPS and gRPC over TLS, with a token; one question, or a load."""

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import jwt

from protos import classifier_pb2, classifier_pb2_grpc
from tests.docker.stack import AUDIENCE, Stack

# What a client of a replicated service sets: nginx cannot repeat a gRPC call whose replica died with it.
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def token(stack: Stack, scope: str = "predict", lifetime_s: float = 3600) -> str:
    """A token that the stack's servers take."""
    now_s = time.time()
    claims = {"sub": "docker-test", "aud": AUDIENCE, "scope": scope, "iat": now_s, "exp": now_s + lifetime_s}
    return jwt.encode(claims, stack.jwt_key, algorithm="HS256")


class Https:
    """One connection to the proxy's HTTPS port.

    Args:
        stack: Where to ask.
        bearer: The token to show; empty for none.
    """

    def __init__(self, stack: Stack, bearer: str = "") -> None:
        trusted = ssl.create_default_context(cafile=str(stack.certificate))
        self._connection = http.client.HTTPSConnection("localhost", stack.https_port, timeout=30, context=trusted)
        # What is tested is who answers, not how fast: a busy machine must not turn it into a refusal.
        self._headers = {"X-Latency-Budget-Ms": "10000"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and answer; an answer that is no JSON is its bytes."""
        kind = {"Content-Type": "application/json" if body.startswith(b"{") else "image/png"} if body else {}
        self._connection.request(method, path, body, {**self._headers, **kind})
        answer = self._connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


@contextmanager
def grpc_classifier(stack: Stack, bearer: str = "") -> Iterator[Callable[[bytes], classifier_pb2.ClassifyResponse]]:
    """Classifies a picture by gRPC over TLS.

    Args:
        stack: Where to ask.
        bearer: The token to show; empty for none.
    """
    trusted = grpc.ssl_channel_credentials(stack.certificate.read_bytes())
    metadata = (("authorization", f"Bearer {bearer}"),) if bearer else ()
    options = (("grpc.service_config", json.dumps(RETRIES)),)
    with grpc.secure_channel(f"localhost:{stack.grpc_port}", trusted, options=options) as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)

        def ask(picture: bytes) -> classifier_pb2.ClassifyResponse:
            encoded = classifier_pb2.EncodedImages(images=[picture])
            return stub.Classify(classifier_pb2.ClassifyRequest(encoded=encoded), timeout=10, metadata=metadata)

        yield ask


@dataclass
class Load:
    """What some clients asked, one after the other, until they were stopped.

    Args:
        answered: How many requests were answered.
        failures: What went wrong with the others.
        reopened: How often a kept connection was found closed before a single byte of an answer, and opened again.
        slowest_s: The longest that one took, in seconds.
    """

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    reopened: int = 0
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, seconds: float, failure: str = "") -> None:
        """Notes one request."""
        with self.lock:
            self.slowest_s = max(self.slowest_s, seconds)
            if failure:
                self.failures.append(failure)
            else:
                self.answered += 1


@contextmanager
def load(stack: Stack, bearer: str, picture: bytes, n_each: int = 4) -> Iterator[tuple[Load, Load]]:
    """Clients by HTTPS and as many by gRPC, for as long as the block lasts.

    One by HTTPS does what every HTTP client does, and no more: a connection that was closed while it was idle is opened
    again. Where a request goes when its replica dies is the proxy's business.

    Args:
        stack: Where to ask.
        bearer: The token to show.
        picture: What to ask about.
        n_each: Clients of each kind.

    Yields:
        What came of them, by HTTPS and by gRPC.
    """
    stop, by_https, by_grpc = threading.Event(), Load(), Load()
    threads = [
        threading.Thread(target=ask, args=(stack, bearer, picture, stop, counted))
        for ask, counted in ((_ask_https, by_https), (_ask_grpc, by_grpc))
        for _ in range(n_each)
    ]
    for thread in threads:
        thread.start()
    try:
        yield by_https, by_grpc
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask_https(stack: Stack, bearer: str, picture: bytes, stop: threading.Event, counted: Load) -> None:
    client = Https(stack, bearer)
    while not stop.is_set():
        began_s = time.perf_counter()
        try:
            status, answer = _ask_again_if_closed(client, picture, counted)
            failure = "" if status == http.HTTPStatus.OK else f"{status} {answer}"
        except (OSError, http.client.HTTPException) as error:
            failure = repr(error)
            client.close()
        counted.count(time.perf_counter() - began_s, failure)
    client.close()


def _ask_again_if_closed(client: Https, picture: bytes, counted: Load) -> tuple[int, Any]:
    try:
        return client.ask("POST", "/predict", picture)
    except http.client.RemoteDisconnected:
        client.close()
        with counted.lock:
            counted.reopened += 1
        return client.ask("POST", "/predict", picture)


def _ask_grpc(stack: Stack, bearer: str, picture: bytes, stop: threading.Event, counted: Load) -> None:
    with grpc_classifier(stack, bearer) as classify:
        while not stop.is_set():
            began_s, failure = time.perf_counter(), ""
            try:
                classify(picture)
            except grpc.RpcError as error:
                failure = f"{error.code()} {error.details()}"
            counted.count(time.perf_counter() - began_s, failure)
