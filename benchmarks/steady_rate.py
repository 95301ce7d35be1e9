"""A steady rate of requests to a deployed server, by the standard library alone."""

import http.client
import math
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 10.0
MAX_CLIENTS: Final = 16


class NotFitError(Exception):
    """What the server does is not what it should do; the message says both."""


@dataclass(frozen=True)
class Target:
    """Where to ask, and how.

    Args:
        url: `http://host:port` or `https://host:port`.
        token: For `Authorization: Bearer`; empty for none.
        ca: File of certificates to trust besides the system's; None for those alone.
    """

    url: str
    token: str = ""
    ca: Path | None = None

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept from request to request."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise NotFitError(f"expected http://host:port or https://host:port, received {self.url!r}")
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
        trusted = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=trusted)

    def ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one answer."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@dataclass
class Watch:
    """What came of the steady rate.

    Args:
        latencies_ms: Of what was answered, from the moment it was due, in milliseconds.
        failures: What went wrong with the rest.
    """

    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def count(self, latency_ms: float, failure: str = "") -> None:
        """Notes one request."""
        if failure:
            self.failures.append(failure)
        else:
            self.latencies_ms.append(latency_ms)

    @property
    def error_rate(self) -> float:
        """Share of requests that failed."""
        return len(self.failures) / max(1, len(self.failures) + len(self.latencies_ms))

    @property
    def p99_ms(self) -> float:
        """99th percentile, nearest rank; infinite where nothing was answered."""
        ordered = sorted(self.latencies_ms)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.inf


def watch(target: Target, pictures: Sequence[bytes], rate_per_s: float, seconds: float) -> Watch:
    """Asks at a steady rate, however long the answers take, and counts.

    Args:
        target: Whom.
        pictures: What, in turn.
        rate_per_s: Requests a second, over a few connections.
        seconds: How long.
    """
    seen, lock = Watch(), threading.Lock()
    n_clients = max(1, min(MAX_CLIENTS, math.ceil(rate_per_s / 10)))
    began_s = time.monotonic() + 0.1

    def client(number: int) -> None:
        connection = target.connect()
        for index in range(number, int(rate_per_s * seconds), n_clients):
            due_s = began_s + index / rate_per_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            failure = _failure(target, connection, pictures[index % len(pictures)])
            with lock:
                seen.count((time.monotonic() - due_s) * 1e3, failure)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _failure(target: Target, connection: http.client.HTTPConnection, picture: bytes) -> str:
    try:
        status, body = target.ask(connection, "POST", "/predict", picture)
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # the next request opens it again
        return repr(error)
    return "" if status == http.HTTPStatus.OK else f"{status} {body[:200].decode(errors='replace')}"
